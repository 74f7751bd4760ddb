// The list of one's own orders.

import { get } from "./api.js";
import { dayAndTime, find, h, money, say, whileBusy } from "./dom.js";
import { explain, ORDER_STATES } from "./messages.js";
import "./page.js";

const list = find("[data-orders]");
const message = find("[data-message]");
const more = find("[data-more]");
let nextPage = "";

function row(order) {
  const [words, kind] = ORDER_STATES[order.status] ?? [order.status, ""];
  const items = order.items ?? [];
  const count = items.reduce((sum, item) => sum + item.quantity, 0);
  const names = items.map((item) => `${item.quantity} × ${item.name || `ticket ${item.ticket_id}`}`);
  return h(
    "li",
    {},
    h(
      "a",
      { class: "card card-link order-row", href: `/orders/${order.id}` },
      h("h2", {}, names.join(", ") || `${count} tickets`),
      h("span", { class: "price" }, money(order.total, order.currency)),
      h("span", { class: "muted small" }, dayAndTime(order.created_at)),
      h("span", { class: `badge ${kind && `badge-${kind}`}` }, words),
    ),
  );
}

async function load() {
  try {
    const page = await get(`/api/orders${nextPage}`);
    list.append(...page.results.map(row));
    nextPage = page.next ? new URL(page.next, location.href).search : "";
    more.hidden = !nextPage;
    if (!list.children.length) {
      const events = h("a", { class: "button", href: "/" }, "See what is on sale");
      list.append(h("li", { class: "empty" }, "You have no orders yet.", h("br"), events));
    }
  } catch (error) {
    say(message, explain(error));
  }
}

more.addEventListener("click", () => whileBusy(more, load));
load();
