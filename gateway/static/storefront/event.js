// One event: its tickets with live availability, and buying.

import { get, goToLogin, isSignedIn, newKey, post, serverNow } from "./api.js";
import { duration, find, h, money, say, setText, timeSpan, whileBusy } from "./dom.js";
import { explain } from "./messages.js";
import { poll, ready } from "./page.js";

const POLL_MS = 1500;
const FEW_LEFT = 10;
const QUANTITY_MAX = 10;

const article = find("[data-event]");
const message = find("[data-message]");

function head(event) {
  document.title = `${event.title} · Flash Sale`;
  const ended = event.status === "ENDED";
  return h(
    "header",
    {},
    h("h1", {}, event.title),
    h(
      "p",
      { class: "facts" },
      h("span", {}, timeSpan(event.starts_at, event.ends_at)),
      ended ? h("span", { class: "badge" }, "This event is over") : null,
    ),
    event.description ? h("p", { class: "event-text" }, event.description) : null,
  );
}

/** One ticket on the page: shows what polling finds, and buys. */
class TicketBox {
  constructor(ticket) {
    this.ticket = ticket;
    this.intent = null;
    const limit = Math.min(ticket.per_order_limit || QUANTITY_MAX, QUANTITY_MAX);
    const id = `quantity-${ticket.id}`;
    this.live = h("span", { class: "live live-off" }, "…");
    this.note = h("span", { class: "muted small" });
    this.quantity = h("input", {
      id,
      type: "number",
      inputmode: "numeric",
      min: 1,
      max: limit,
      value: 1,
    });
    this.button = h("button", { class: "button", type: "submit", disabled: true }, "Buy");
    this.box = h("div", { class: "ticket-message", role: "status" });
    this.form = h(
      "form",
      { class: "ticket-buy", novalidate: true },
      h("label", { class: "visually-hidden", for: id }, `How many ${ticket.name}`),
      this.quantity,
      this.button,
    );
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      whileBusy(this.button, () => this.buy()).finally(() => this.show(this.state));
    });
    this.state = null;
    this.element = h(
      "li",
      { class: "card ticket" },
      h(
        "div",
        {},
        h("h2", {}, ticket.name),
        h("p", { class: "price" }, money(ticket.price, ticket.currency)),
        h("p", { class: "row" }, this.live, this.note),
      ),
      this.form,
      this.box,
    );
    setText(this.note, this.limits());
  }

  limits() {
    const { per_order_limit: order, per_user_limit: person } = this.ticket;
    if (person) return `at most ${person} per person`;
    return order ? `at most ${order} per order` : "";
  }

  async refresh() {
    try {
      this.show(await get(`/api/catalog/tickets/${this.ticket.id}/availability`, { tries: 1 }));
    } catch (error) {
      this.live.className = "live live-off";
      setText(this.live, "not live, trying again");
      throw error;
    }
  }

  show(state) {
    if (!state) return;
    this.state = state;
    const { available, on_sale: onSale, sold_out: soldOut } = state;
    const buyable = onSale && !soldOut;
    let kind = "off";
    let text;
    if (!onSale) {
      text = this.whyNotOnSale();
    } else if (soldOut) {
      text = "Sold out";
    } else if (available === null || available === undefined) {
      [kind, text] = ["ok", "On sale"];
    } else {
      kind = available <= FEW_LEFT ? "warn" : "ok";
      text = available <= FEW_LEFT ? `Only ${available} left` : `${available} left`;
    }
    this.live.className = `live live-${kind}`;
    setText(this.live, text);
    if (this.button.hasAttribute("aria-busy")) return;
    this.button.disabled = this.quantity.hidden = !buyable;
    setText(this.button, soldOut && onSale ? "Sold out" : "Buy");
  }

  whyNotOnSale() {
    const { sale_starts_at: start, sale_ends_at: end } = this.ticket;
    const now = serverNow();
    if (start && Date.parse(start) > now) return `Sale starts in ${duration(Date.parse(start) - now)}`;
    if (end && Date.parse(end) <= now) return "The sale is over";
    return "Not on sale";
  }

  /** The same wish keeps its key until there is a definite answer, however often it is pressed. */
  keyFor(quantity) {
    if (this.intent?.quantity !== quantity) this.intent = { quantity, key: newKey() };
    return this.intent.key;
  }

  async buy() {
    const quantity = Number(this.quantity.value);
    const max = Number(this.quantity.max);
    if (!Number.isInteger(quantity) || quantity < 1 || quantity > max) {
      say(this.box, `Choose a number from 1 to ${max}.`);
      return;
    }
    if (!isSignedIn()) {
      await ready;
      goToLogin();
      return;
    }
    say(this.box, "");
    const items = [{ ticket_id: this.ticket.id, quantity }];
    try {
      const order = await post("/api/orders", { items }, { key: this.keyFor(quantity) });
      this.intent = null;
      location.assign(`/orders/${order.id}`);
    } catch (error) {
      if (!error.isUnknown) this.intent = null;
      say(this.box, explain(error));
    }
  }
}

async function start() {
  try {
    const event = await get(`/api/catalog/events/${article.dataset.event}`);
    const tickets = (event.tickets ?? []).map((ticket) => new TicketBox(ticket));
    const list = tickets.length
      ? h("ul", { class: "ticket-list" }, ...tickets.map((ticket) => ticket.element))
      : h("p", { class: "empty" }, "There are no tickets for this event yet.");
    article.replaceChildren(head(event), list);
    for (const ticket of tickets) poll(() => ticket.refresh(), POLL_MS);
  } catch (error) {
    const text = error.status === 404 ? "This event does not exist, or is not public." : explain(error);
    say(message, text);
  }
}

start();
