// The browsable API's forms cannot set headers. Every form sent is a new intent: it gets its own key.
jQuery(document).ajaxSend(function (event, request) {
  const unique = window.crypto && crypto.randomUUID ? crypto.randomUUID() : "browse-" + Date.now();
  request.setRequestHeader("Idempotency-Key", unique);
});
