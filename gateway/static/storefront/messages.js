// What a refusal means to the person who is buying, by the API's machine-readable code.

const BY_CODE = {
  sold_out: "Sold out. A ticket may come back when somebody does not pay in time.",
  insufficient_stock: "There are not that many left. Try a smaller number.",
  limit_exceeded: "That is more than one person may have of this ticket.",
  sale_not_open: "This ticket is not on sale at the moment.",
  ticket_not_found: "This ticket is no longer offered.",
  idempotency_key_reused: "Something changed in between. Reload the page and try again.",
  payment_already_settled: "This payment was settled in the meantime.",
  order_not_payable: "This order can no longer be paid.",
  order_already_paid: "This order is paid already.",
  webhook_refused: "The shop refused the message: its signature is not the provider's.",
  amount_mismatch: "The shop refused the message: it speaks of another amount.",
  webhook_not_delivered: "The shop could not be told just now. Try again.",
  order_expired: "The time to pay is over; the tickets went back on sale.",
  invalid_transition: "The order has moved on in the meantime.",
  rate_limited: "That was too often. Wait a moment and try again.",
  permission_denied: "Your account may not do this.",
  csrf_failed: "This page is too old. Reload it and try again.",
  not_found: "There is nothing here.",
  not_authenticated: "Please log in.",
  no_answer: "The server did not answer. Try again: you will not be charged or booked twice.",
};

/** One sentence for a person; unknown codes show the server's own words. */
export function explain(error) {
  const code = error?.code ?? "";
  if (BY_CODE[code]) return BY_CODE[code];
  if (error?.status >= 500) {
    return "It is very busy just now. Try again: you will not be charged or booked twice.";
  }
  const field = error?.errors?.[0]?.detail;
  return field || error?.message || "That did not work.";
}

/** Order states: the words and the badge. */
export const ORDER_STATES = {
  AWAITING_PAYMENT: ["Waiting for payment", "warn"],
  PAID: ["Paid, being confirmed", "warn"],
  CONFIRMED: ["Confirmed", "ok"],
  CANCELLED: ["Cancelled", ""],
  EXPIRED: ["Expired", ""],
  REJECTED: ["Not available", "bad"],
};
