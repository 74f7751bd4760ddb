// Builds elements and shows values. Text goes in as text nodes only, so that no title is ever markup.

/** h("p", {class: "muted", onclick: f, hidden: true}, "text", element, …) */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (selector) => document.querySelector(selector);

/** Put a message into a box; screen readers say it. Without text the box is emptied. */
export function say(box, text, kind = "error", ...more) {
  box.replaceChildren(...(text ? [h("p", { class: `alert alert-${kind}` }, text, ...more)] : []));
}

/** Change text only where it differs, so that nothing flickers and no selection is lost. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Disable a button and show that it works, until the promise is done. */
export async function whileBusy(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await work();
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

/** Minor units and an ISO currency, as the reader's language writes them. */
export function money(minorUnits, currency) {
  try {
    const format = new Intl.NumberFormat(undefined, { style: "currency", currency });
    return format.format(minorUnits / 10 ** format.resolvedOptions().maximumFractionDigits);
  } catch {
    return `${minorUnits} ${currency}`;
  }
}

const DAY_AND_TIME = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
});

export function dayAndTime(iso) {
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? "" : DAY_AND_TIME.format(time);
}

/** Start and end, without saying the same day twice. */
export function timeSpan(startIso, endIso) {
  const [start, end] = [new Date(startIso), new Date(endIso)];
  if (Number.isNaN(start.getTime()) || !(end > start)) return dayAndTime(startIso);
  return DAY_AND_TIME.formatRange(start, end);
}

/** 75_000 → "1:15"; hours and days where they are needed. */
export function duration(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const pad = (number) => String(number).padStart(2, "0");
  const [days, hours] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24];
  const [minutes, rest] = [Math.floor(seconds / 60) % 60, seconds % 60];
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}
