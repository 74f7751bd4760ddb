// The list of events, with search and more on demand.

import { get } from "./api.js";
import { dayAndTime, find, h, money, say, whileBusy } from "./dom.js";
import { explain } from "./messages.js";
import "./page.js";

const list = find("[data-events]");
const message = find("[data-message]");
const more = find("[data-more]");
const form = find("[data-search]");
let nextPage = null;
let asked = 0;

function startingPrice(tickets) {
  const cheapest = [...tickets].sort((a, b) => a.price - b.price)[0];
  if (!cheapest) return null;
  const from = tickets.length > 1 ? "from " : "";
  return h("span", { class: "price" }, from + money(cheapest.price, cheapest.currency));
}

function saleBadge(event) {
  const onSale = (event.tickets ?? []).filter((ticket) => ticket.status === "ON_SALE");
  if (event.status === "ENDED") return h("span", { class: "badge" }, "Ended");
  if (!onSale.length) return h("span", { class: "badge" }, "Not on sale yet");
  if (onSale.every((ticket) => ticket.available === 0)) {
    return h("span", { class: "badge badge-bad" }, "Sold out");
  }
  return h("span", { class: "badge badge-ok" }, "On sale");
}

function card(event) {
  return h(
    "li",
    {},
    h(
      "a",
      { class: "card card-link event-card", href: `/events/${event.id}` },
      h("p", { class: "event-date" }, dayAndTime(event.starts_at)),
      h("h2", {}, event.title),
      event.description ? h("p", { class: "excerpt" }, event.description) : null,
      h("div", { class: "row row-spread" }, saleBadge(event), startingPrice(event.tickets ?? [])),
    ),
  );
}

async function load(query, { append = false } = {}) {
  const mine = ++asked;
  say(message, "");
  try {
    const page = await get(`/api/catalog/events${query}`);
    // A slow answer to an older question must not replace a newer one.
    if (mine !== asked) return;
    const cards = page.results.map(card);
    if (append) list.append(...cards);
    else list.replaceChildren(...cards);
    nextPage = page.next ? new URL(page.next, location.href).search : null;
    more.hidden = !nextPage;
    if (!page.results.length && !append) {
      const searching = new URLSearchParams(location.search).has("search");
      const text = searching ? "No event matches your search." : "Nothing is on sale at the moment.";
      list.replaceChildren(h("li", { class: "empty" }, text));
    }
  } catch (error) {
    if (mine === asked) say(message, explain(error));
  }
}

function queryOf(text) {
  return text ? `?${new URLSearchParams({ search: text })}` : "";
}

function search() {
  const query = queryOf(form.elements.search.value.trim());
  if (query === location.search) return;
  history.replaceState(null, "", query || location.pathname);
  load(query);
}

let typing = 0;
form.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 300);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  search();
});
more.addEventListener("click", () => whileBusy(more, () => load(nextPage, { append: true })));

const asGiven = new URLSearchParams(location.search).get("search") ?? "";
form.elements.search.value = asGiven;
load(queryOf(asGiven));
