// Comfort only: every page does without it. No library, no inline handler, nothing from another place.
"use strict";

const of = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));

// Times: the viewer's own, UTC in the title.
const clock = new Intl.DateTimeFormat(document.documentElement.lang, {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hour12: false,
});
const clockOfDay = new Intl.DateTimeFormat(document.documentElement.lang, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false,
});
function localTimes(from) {
  for (const time of all("time[datetime]", from)) {
    if (time.dataset.told) continue;
    time.dataset.told = "yes";
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = time.dataset.utc || time.textContent;
    if (time.dataset.form === "age") continue;
    const isShort = time.dataset.form === "short" && at.getFullYear() === new Date().getFullYear();
    time.textContent = (isShort ? clockOfDay : clock).format(at);
  }
  const zone = of("#zone");
  if (zone) zone.textContent = clock.resolvedOptions().timeZone;
}

// The slider. Arrow keys go from one recorded change to the next; Page Up and Page Down by a day.
const DAY_MS = 86400000;
const SETTLE_MS = 450; // Long enough to press an arrow again, short enough to be felt as an answer.
function slider() {
  const range = of("#slider");
  if (!range) return;
  range.disabled = false;
  const marks = (range.dataset.marks || "").split(" ").filter(Boolean).map(Number);
  const told = of("#slider-moment");
  const newest = Number(range.max);
  let waiting = 0;
  const say = () => {
    const at = Number(range.value);
    const words = at >= newest ? "Now" : clock.format(new Date(at));
    told.textContent = words;
    range.setAttribute("aria-valuetext", words);
  };
  const go = () => {
    const url = new URL(location.href);
    const at = Number(range.value);
    for (const gone of ["after", "before"]) url.searchParams.delete(gone);
    if (at >= newest) url.searchParams.delete("at");
    else url.searchParams.set("at", new Date(at).toISOString());
    if (url.href === location.href) return;
    sessionStorage.setItem("slider", "focused");
    location.assign(url.href);
  };
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(go, SETTLE_MS); };
  const move = (to) => { range.value = Math.min(Math.max(to, Number(range.min)), newest); say(); soon(); };
  range.addEventListener("keydown", (event) => {
    const at = Number(range.value);
    const before = marks.filter((mark) => mark < at);
    const after = marks.filter((mark) => mark > at);
    const to = {
      ArrowLeft: before.length ? before[before.length - 1] : Number(range.min),
      ArrowDown: before.length ? before[before.length - 1] : Number(range.min),
      ArrowRight: after.length ? after[0] : newest,
      ArrowUp: after.length ? after[0] : newest,
      PageDown: at - DAY_MS,
      PageUp: at + DAY_MS,
      Home: Number(range.min),
      End: newest,
    }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(to);
  });
  range.addEventListener("input", say);
  range.addEventListener("change", go);
  range.setAttribute("aria-valuetext", Number(range.value) >= newest ? "Now" : clock.format(new Date(Number(range.value))));
  if (sessionStorage.getItem("slider") === "focused") {
    sessionStorage.removeItem("slider");
    range.focus({ preventScroll: true });
  }
}

// Filters as one types: hides rows that are on the page; the form asks the server for all.
function filters() {
  for (const field of all("input[data-filters]")) {
    const rows = () => all(field.dataset.filters);
    const told = of("#" + field.dataset.told);
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows()) {
        row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
        if (!row.hidden) shown += 1;
      }
      if (told) told.textContent = wanted === "" ? "" : `${shown} shown`;
    });
  }
  for (const select of all("select[data-submits]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
}

// Changes as they are recorded. The server renders them: one answer of the page is fetched and its list taken.
const ANNOUNCED_MAX = 200; // Rows kept in the page; older ones are a page further on.
const GATHER_MS = 300; // A scan records many changes at once: one look for all of them.
function live() {
  const list = of("[data-live]");
  const lamp = of("#live");
  if (!list || !lamp || !window.EventSource) return;
  const source = new EventSource(list.dataset.live);
  let waiting = 0;
  const look = () => {
    waiting = 0;
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.addEventListener("load", () => {
      const arrived = request.status === 200 && request.response && of("[data-live]", request.response);
      if (arrived) take(arrived);
    });
    request.send();
  };
  const take = (arrived) => {
    const known = new Set(all("[data-key]", list).map((row) => row.dataset.key));
    const fresh = all("[data-key]", arrived).filter((row) => !known.has(row.dataset.key));
    const empty = of("#no-changes");
    if (fresh.length && empty) empty.hidden = true;
    for (const row of fresh.reverse()) {
      const own = document.importNode(row, true);
      own.classList.add("arrived");
      list.prepend(own);
    }
    all("[data-key]", list).slice(ANNOUNCED_MAX).forEach((row) => row.remove());
    localTimes(list);
    if (fresh.length) of("#live-said").textContent = `${fresh.length} recorded just now`;
  };
  const soon = () => { if (!waiting) waiting = setTimeout(look, GATHER_MS); };
  const say = (words, on) => { lamp.textContent = words; lamp.classList.toggle("on", on); };
  source.addEventListener("open", () => say("Live: new changes appear here", true));
  source.addEventListener("error", () => say("Not connected; trying again", false));
  for (const name of (list.dataset.events || "message").split(" ")) source.addEventListener(name, soon);
  window.addEventListener("pagehide", () => source.close());
}

// Keys. Not while somebody types.
function keys() {
  const help = of("#keys");
  const places = { f: "/", r: "/rules", c: "/changes", a: "/alerts", s: "/schedule", p: "/policy", w: "/waivers", u: "/audit" };
  let isGoing = false;
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const isTyping = event.target.closest && event.target.closest("input:not([type=range]), textarea, select");
    if (isTyping) return;
    if (isGoing) {
      isGoing = false;
      const link = places[event.key] && of(`.head nav a[data-place="${places[event.key]}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (event.key === "?") { event.preventDefault(); help.open ? help.close() : help.showModal(); }
    else if (event.key === "g") isGoing = true;
    else if (event.key === "/") { const field = of("[data-search]"); if (field) { event.preventDefault(); field.focus(); } }
    else if (event.key === "t") { const range = of("#slider"); if (range) { event.preventDefault(); range.focus(); } }
    else if (event.key === "n") { const back = of("#back-to-now"); if (back) { event.preventDefault(); back.click(); } }
  });
  const button = of("#show-keys");
  if (button) { button.hidden = false; button.addEventListener("click", () => help.showModal()); }
}

document.addEventListener("DOMContentLoaded", () => {
  for (const only of all("[data-with-script]")) only.hidden = false;
  localTimes(document);
  slider();
  filters();
  live();
  keys();
});
