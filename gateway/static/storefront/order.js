// One order: where it stands, the countdown, paying by what the shop offers, cancelling.

import { get, newKey, post, serverNow } from "./api.js";
import { dayAndTime, duration, find, h, money, say, setText, whileBusy } from "./dom.js";
import { explain, ORDER_STATES } from "./messages.js";
import { poll } from "./page.js";

const POLL_MS = 2000;
const URGENT_MS = 60_000;
const UNFINISHED = ["AWAITING_PAYMENT", "PAID"];
const STEPS = ["Reserved", "Paid", "Confirmed"];
const STEPS_DONE = { AWAITING_PAYMENT: 1, PAID: 2, CONFIRMED: 3 };
const ENDINGS = {
  CANCELLED: "This order was cancelled and its tickets are back on sale.",
  EXPIRED: "It was not paid in time, so its tickets are back on sale.",
  REJECTED: "This order could not be filled; nothing was taken and nothing is to be paid.",
};

// What the shop's provider may offer, in the order of the buttons.
const METHODS = {
  sandbox_ok: { label: (amount) => `Pay ${amount}` },
  stripe_checkout: { label: (amount) => `Pay ${amount}` },
  sandbox_later: { label: () => "Pay later at the provider", quiet: true },
  sandbox_decline: { label: () => "Try a declined card", quiet: true },
};
const LATE = {
  rereserved: "Your payment came late, but your tickets were still there: they were reserved for you again.",
  refunded: {
    EXPIRED: "Your payment came too late: the tickets had gone back on sale.",
    CANCELLED: "Your payment came after the order was cancelled.",
  },
};

const box = find("[data-order]");
const message = find("[data-message]");
const path = `/api/orders/${encodeURIComponent(box.dataset.order)}`;
let order = null;
let shown = "";
// One key per wish; kept while the outcome is unknown, so that pressing again pays only once.
const keys = {};

// A page of the provider's: never anything but a web address.
function webAddress(page) {
  try {
    const url = new URL(page, location.origin);
    return ["https:", "http:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

const paymentsIn = (...states) => (order.payments ?? []).filter((one) => states.includes(one.status));

function steps() {
  const done = STEPS_DONE[order.status];
  if (!done) return null;
  const mark = (index) => (index < done ? "done" : index === done ? "now" : "");
  return h("ol", { class: "steps" }, STEPS.map((name, index) => h("li", { class: mark(index) }, name)));
}

function title() {
  const [words, kind] = ORDER_STATES[order.status] ?? [order.status, ""];
  return h(
    "div",
    { class: "row row-spread" },
    h("h1", {}, order.status === "CONFIRMED" ? "Your tickets" : "Your order"),
    h("span", { class: `badge ${kind && `badge-${kind}`}`, "data-status": order.status }, words),
  );
}

const nameOf = (item) => item.name || `Ticket ${item.ticket_id}`;

function lines() {
  const row = (item) =>
    h(
      "tr",
      {},
      h("td", {}, nameOf(item)),
      h("td", { class: "number" }, `${item.quantity} ×`),
      h("td", { class: "number" }, money(item.unit_price, order.currency)),
    );
  return h(
    "div",
    { class: "card" },
    h(
      "table",
      { class: "lines" },
      h("caption", { class: "visually-hidden" }, "What you ordered"),
      h(
        "thead",
        { class: "visually-hidden" },
        h("tr", {}, ["Ticket", "Quantity", "Price"].map((name) => h("th", { scope: "col" }, name))),
      ),
      h("tbody", {}, (order.items ?? []).map(row)),
      h(
        "tfoot",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "row", colspan: 2 }, "Total"),
          h("td", { class: "number" }, money(order.total, order.currency)),
        ),
      ),
    ),
    h("p", { class: "muted small" }, `Order ${order.id}`, order.created_at ? ` · ${dayAndTime(order.created_at)}` : ""),
  );
}

const clock = h("span", { class: "clock" });
const bar = h("progress", { "aria-label": "Time left to pay" });
const countdown = h("div", { class: "countdown" }, clock, h("span", { class: "muted" }, "left to pay"));

function tick() {
  if (order?.status !== "AWAITING_PAYMENT" || !order.expires_at) return;
  const left = Date.parse(order.expires_at) - serverNow();
  const whole = Date.parse(order.expires_at) - Date.parse(order.created_at ?? "");
  setText(clock, left > 0 ? duration(left) : "Time is up");
  countdown.classList.toggle("urgent", left < URGENT_MS);
  bar.max = Number.isFinite(whole) && whole > 0 ? whole : 600_000;
  bar.value = Math.max(0, left);
}

function payButton(method) {
  const { label, quiet } = METHODS[method];
  const words = label(money(order.total, order.currency));
  const button = h("button", { class: `button ${quiet ? "button-quiet" : ""}`, type: "button", "data-pay": method }, words);
  button.addEventListener("click", () => whileBusy(button, () => pay(method)));
  return button;
}

const offered = () => Object.keys(METHODS).filter((method) => (order.payment_methods ?? []).includes(method));

function openPayment() {
  const page = paymentsIn("CREATED").map((one) => one.page && webAddress(one.page)).find(Boolean);
  if (!page) return null;
  const link = h("a", { href: page }, "Go on there");
  return h("p", { class: "alert alert-info" }, "A payment is waiting at the provider. ", link);
}

function payment() {
  const cancel = h("button", { class: "button button-danger", type: "button", "data-cancel": true }, "Cancel the order");
  cancel.addEventListener("click", () => {
    if (confirm("Cancel this order? Its tickets go back on sale.")) whileBusy(cancel, cancelOrder);
  });
  return h(
    "div",
    { class: "card stack" },
    countdown,
    bar,
    openPayment(),
    offered().some((method) => method.startsWith("sandbox_"))
      ? h("p", { class: "muted small" }, "This is a sandbox: no real money moves. Choose how the payment goes.")
      : null,
    h("div", { class: "row actions" }, offered().map(payButton)),
    h("div", { class: "row actions" }, cancel),
  );
}

function admissions() {
  return h(
    "div",
    {},
    (order.items ?? []).map((item) =>
      h(
        "div",
        { class: "admission" },
        h("h2", {}, nameOf(item)),
        h("span", { class: "count" }, `${item.quantity} ×`),
      ),
    ),
  );
}

function late() {
  if (order.late_payment !== "rereserved") return null;
  return h("p", { class: "alert alert-info", "data-late": order.late_payment }, LATE.rereserved);
}

function body() {
  if (order.status === "AWAITING_PAYMENT") return payment();
  if (order.status === "PAID") {
    return h("p", { class: "alert alert-info" }, "Payment received. Your tickets are being confirmed…");
  }
  if (order.status === "CONFIRMED") return admissions();
  return h("p", { class: "alert", "data-late": order.late_payment }, `${ending()} `, h("a", { href: "/" }, "See what is on sale"));
}

function ending() {
  const reason = order.rejection ? `${explain(order.rejection)} ` : "";
  const refund = paymentsIn("REFUND_DUE").length
    ? " Your payment is being returned."
    : paymentsIn("REFUNDED").length
      ? " Your payment was returned."
      : "";
  const tooLate = order.late_payment === "refunded" ? LATE.refunded[order.status] : "";
  return reason + (tooLate || (ENDINGS[order.status] ?? "")) + refund;
}

function show(latest) {
  order = latest;
  // Drawn anew only when something changed: a button that is being pressed must stay.
  const state = JSON.stringify([order.status, order.late_payment, (order.payments ?? []).map((one) => [one.id, one.status])]);
  if (shown !== state) {
    shown = state;
    box.replaceChildren(...[title(), steps(), late(), body(), lines()].filter(Boolean));
  }
  tick();
}

async function act(name, work) {
  keys[name] ??= newKey();
  say(message, "");
  try {
    await work(keys[name]);
    delete keys[name];
  } catch (error) {
    if (!error.isUnknown) delete keys[name];
    say(message, explain(error));
    if (error.status === 409) show(await get(path));
  }
}

function pay(method) {
  return act(method, async (key) => {
    const answer = await post(`${path}/pay`, { method }, { key });
    const page = answer.payment?.page && webAddress(answer.payment.page);
    if (page) {
      location.assign(page);
      return;
    }
    if (answer.payment?.status === "DECLINED") {
      say(message, "The payment was declined. Nothing was charged; you can try again until the time is up.");
    }
    show(answer.order ?? (await get(path)));
    watch();
  });
}

function cancelOrder() {
  return act("cancel", async (key) => {
    await post(`${path}/cancel`, undefined, { key });
    show(await get(path));
  });
}

let stopWatching = () => {};

function watch() {
  stopWatching();
  stopWatching = poll(async () => {
    show(await get(path, { tries: 1 }));
    return UNFINISHED.includes(order.status);
  }, POLL_MS);
}

async function start() {
  try {
    show(await get(path));
    setInterval(tick, 500);
    watch();
  } catch (error) {
    say(message, error.status === 404 ? "There is no such order of yours." : explain(error));
  }
}

start();
