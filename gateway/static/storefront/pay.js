// The sandbox's payment page: settles a payment that was to be made later.

import { get, newKey, post } from "./api.js";
import { find, h, money, say, whileBusy } from "./dom.js";
import { explain } from "./messages.js";
import "./page.js";

const card = find("[data-payment]");
const message = find("[data-message]");
const actions = find("[data-actions]");
const paymentId = encodeURIComponent(card.dataset.payment);
const keys = {};
let orderPage = "/orders";

function show(payment) {
  orderPage = `/orders/${encodeURIComponent(payment.order_id)}`;
  const back = find("[data-back]");
  back.href = orderPage;
  back.textContent = "Back to the order";
  const amount = h("strong", { class: "price" }, money(payment.amount, payment.currency));
  find("[data-summary]").replaceChildren(h("p", { class: "row row-spread" }, "To pay", amount));
  actions.hidden = payment.status !== "CREATED";
  if (actions.hidden) say(message, "This payment is settled already.", "info");
}

async function settle(outcome) {
  keys[outcome] ??= newKey();
  say(message, "");
  try {
    await post(`/api/payments/sandbox/${paymentId}/settle`, { outcome }, { key: keys[outcome] });
    actions.hidden = true;
    const paid = outcome === "captured";
    say(message, paid ? "Paid. Back to the shop…" : "Declined; nothing was charged.", paid ? "ok" : "info");
    if (paid) setTimeout(() => location.assign(orderPage), 1200);
  } catch (error) {
    if (!error.isUnknown) delete keys[outcome];
    say(message, explain(error));
  }
}

for (const button of actions.querySelectorAll("[data-outcome]")) {
  button.addEventListener("click", () => whileBusy(button, () => settle(button.dataset.outcome)));
}

async function start() {
  try {
    show(await get(`/api/payments/${paymentId}`));
  } catch (error) {
    if (error.status === 404) actions.hidden = true;
    say(message, error.status === 404 ? "There is no such payment of yours." : explain(error));
  }
}

start();
