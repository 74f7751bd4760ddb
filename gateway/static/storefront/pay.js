// The sandbox's payment page: settles a payment that was to be made later, smoothly or not.

import { get, newKey, post } from "./api.js";
import { find, h, money, say, whileBusy } from "./dom.js";
import { explain } from "./messages.js";
import { poll } from "./page.js";

const POLL_MS = 1000;
const BACK_AFTER_MS = 1200;

const card = find("[data-payment]");
const message = find("[data-message]");
const actions = find("[data-actions]");
const paymentId = encodeURIComponent(card.dataset.payment);
const path = `/api/payments/${paymentId}`;
const keys = {};
let payment = null;

const orderId = () => encodeURIComponent(payment.order_id);
const orderPage = () => `/orders/${orderId()}`;
const amount = () => money(payment.amount, payment.currency);

function show(latest) {
  payment = latest;
  for (const back of document.querySelectorAll("[data-back]")) back.href = orderPage();
  const price = h("strong", { class: "price" }, amount());
  find("[data-summary]").replaceChildren(h("p", { class: "row row-spread" }, "To pay", price));
  actions.hidden = payment.status !== "CREATED";
}

const SETTLED = {
  CAPTURED: ["Paid.", "ok"],
  DECLINED: ["Declined; nothing was charged.", "info"],
  REFUND_DUE: ["The order was over: the shop gives the money back.", "info"],
  REFUNDED: ["The order was over: the shop gave the money back.", "info"],
};

function saySettled() {
  const [words, kind] = SETTLED[payment.status] ?? [payment.status, "info"];
  say(message, words, kind);
}

async function takenOnce() {
  const order = await get(`/api/orders/${orderId()}`);
  const taken = order.payments.filter((one) => one.status === "CAPTURED");
  const total = taken.reduce((sum, one) => sum + one.amount, 0);
  say(message, `The shop was told twice and took the money once: ${money(total, payment.currency)}.`, "ok");
}

function waitForIt() {
  say(message, "The message is on its way and arrives in a few seconds.", "info");
  actions.hidden = true;
  poll(async () => {
    const latest = await get(path, { tries: 1 });
    if (latest.status === "CREATED") return true;
    show(latest);
    saySettled();
    return false;
  }, POLL_MS);
}

// play → what the person is told of it
const TELL = {
  once: () => {
    saySettled();
    if (payment.status === "CAPTURED") setTimeout(() => location.assign(orderPage()), BACK_AFTER_MS);
  },
  twice: () => (payment.status === "CAPTURED" ? takenOnce() : saySettled()),
  later: waitForIt,
  wrong_amount: refused,
  forged: refused,
};

function refused(deliveries) {
  const open = payment.status === "CREATED" ? " The payment is still open." : "";
  const answer = deliveries.find((one) => one.status !== 200);
  if (answer) say(message, `${explain(answer)} Nothing was booked.${open}`, "info");
  else say(message, "The shop took a message that it should have refused.");
}

async function settle(play, outcome) {
  const wish = `${play} ${outcome}`;
  keys[wish] ??= newKey();
  say(message, "");
  try {
    const answer = await post(`/api/payments/sandbox/${paymentId}/settle`, { outcome, play }, { key: keys[wish] });
    show(answer);
    await TELL[play](answer.deliveries);
  } catch (error) {
    if (!error.isUnknown) delete keys[wish];
    say(message, explain(error));
  }
}

for (const button of actions.querySelectorAll("[data-play]")) {
  const { play, outcome } = button.dataset;
  button.addEventListener("click", () => whileBusy(button, () => settle(play, outcome)));
}

async function start() {
  try {
    show(await get(path));
    if (actions.hidden) say(message, "This payment is settled already.", "info");
  } catch (error) {
    say(message, error.status === 404 ? "There is no such payment of yours." : explain(error));
  }
}

start();
