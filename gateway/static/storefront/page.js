// What every page does: renews a lapsed login, closes menus, forgets the login on the way out.

import { forgetLogin, restoreLogin } from "./api.js";

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
});

document.querySelector("[data-logout]")?.addEventListener("submit", forgetLogin);

/** Done at once for most; reloads the page when the login could be renewed. */
export const ready = restoreLogin();

/**
 * Call `work` again and again: every intervalMs while the page is seen, less often while it fails,
 * not at all while it is hidden. Work that returns false is done. Returns a function that stops it.
 */
export function poll(work, intervalMs) {
  const INTERVAL_MAX_MS = 15_000;
  let timer = 0;
  let failures = 0;
  let stopped = false;
  let running = false;

  async function tick() {
    if (running || stopped || document.hidden) return;
    running = true;
    try {
      if ((await work()) === false) stopped = true;
      failures = 0;
    } catch {
      failures += 1;
    }
    running = false;
    // A little jitter, so that a crowd's questions spread out.
    const wait = Math.min(intervalMs * 2 ** failures, INTERVAL_MAX_MS) * (0.9 + Math.random() * 0.2);
    clearTimeout(timer);
    if (!stopped) timer = setTimeout(tick, wait);
  }

  document.addEventListener("visibilitychange", tick);
  tick();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", tick);
  };
}
