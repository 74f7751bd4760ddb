// Calls the public API: JSON, CSRF token, patience with a busy server, and a lapsed login renewed once.

const TIMEOUT_MS = 10_000;
const TRIES_MAX = 3;
const BACKOFF_MS = 400;
// The server's name for "I have not finished your first try yet".
const IN_PROGRESS = "request_in_progress";
const SIGNED_IN = "flashsale.signed-in";
const RELOADED = "flashsale.reloaded";

/** A refusal by the API, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(status, code, detail, { retryAfterSeconds = 0, errors = [] } = {}) {
    super(detail || code);
    this.status = status;
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
    this.errors = errors;
  }

  /** Whether it is unknown if the call had its effect; only the same key may then be tried again. */
  get isUnknown() {
    return this.status === 0 || this.status >= 500 || this.code === IN_PROGRESS;
  }
}

let clockOffsetMs = 0;

/** The server's time in ms, so that countdowns are right on machines with a wrong clock. */
export function serverNow() {
  return Date.now() + clockOffsetMs;
}

/** A fresh Idempotency-Key (crypto.randomUUID does not exist on plain http). */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether the page was made for somebody who is signed in. */
export function isSignedIn() {
  return document.body.dataset.signedIn === "yes";
}

export function goToLogin() {
  const here = location.pathname + location.search;
  location.assign(`/login?next=${encodeURIComponent(here)}`);
}

export const get = (path, options = {}) => call("GET", path, options);

/**
 * POST with an Idempotency-Key. Tries again by itself, with the same key, while the outcome is
 * unknown; a caller that wants to try later passes the same key again.
 */
export const post = (path, body, { key = newKey(), ...options } = {}) =>
  call("POST", path, { ...options, body, key });

async function call(method, path, { body, key, tries = TRIES_MAX } = {}) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await callWithLogin(method, path, body, key);
    } catch (error) {
      if (!(error instanceof ApiError) || !error.isUnknown || tried >= tries) throw error;
      // Full jitter: a crowd that failed together must not come back together.
      await sleep(error.retryAfterSeconds * 1000 + Math.random() * BACKOFF_MS * 2 ** tried);
    }
  }
}

async function callWithLogin(method, path, body, key) {
  try {
    return await send(method, path, body, key);
  } catch (error) {
    if (error.status !== 401) throw error;
  }
  try {
    await renewLogin();
    return await send(method, path, body, key);
  } catch (error) {
    if (error.status === 401) goToLogin();
    throw error;
  }
}

async function send(method, path, body, key) {
  const headers = { Accept: "application/json" };
  if (key) headers["Idempotency-Key"] = key;
  if (method !== "GET") headers["X-CSRFToken"] = csrfToken();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  let content;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    content = response.status === 204 ? null : await response.text();
  } catch {
    throw new ApiError(0, "no_answer", "The server did not answer.");
  }
  const now = Date.parse(response.headers.get("Date") ?? "");
  // The header has whole seconds; smaller differences are not worth a jumping clock.
  if (!Number.isNaN(now) && Math.abs(now - Date.now()) > 2000) clockOffsetMs = now - Date.now();
  const parsed = parse(content);
  if (response.ok) return parsed;
  throw new ApiError(response.status, parsed?.code ?? "unknown", parsed?.detail, {
    retryAfterSeconds: Number(response.headers.get("Retry-After")) || 0,
    errors: parsed?.errors ?? [],
  });
}

function parse(content) {
  try {
    return content ? JSON.parse(content) : null;
  } catch {
    return null;
  }
}

function csrfToken() {
  return /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? "";
}

// --- the login of this browser ---

let renewal = null;

/** Spend the refresh cookie on a new access cookie; calls that fail together share one renewal. */
function renewLogin() {
  renewal ??= send("POST", "/login/refresh").finally(() => {
    renewal = null;
  });
  return renewal;
}

/** On a page made for nobody: if this browser was signed in lately, renew the login quietly. */
export async function restoreLogin() {
  if (isSignedIn()) {
    store(SIGNED_IN, "yes");
    store(RELOADED, null);
    return;
  }
  // A browser that drops the new cookie must not be reloaded for ever.
  if (!stored(SIGNED_IN) || stored(RELOADED)) return;
  try {
    await renewLogin();
    store(RELOADED, "yes");
    location.reload();
  } catch {
    forgetLogin();
  }
}

export function forgetLogin() {
  store(SIGNED_IN, null);
  store(RELOADED, null);
}

// Storage can be switched off; then there is only no quiet renewal.
function store(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {}
}

function stored(name) {
  try {
    return localStorage.getItem(name) !== null;
  } catch {
    return false;
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
