// What a page must be for everybody, looked at in the page itself. Returns sentences about what is not so.
const faults = [];
const say = (what, element) => {
  const html = element ? element.outerHTML.replace(/\s+/g, " ").slice(0, 160) : "";
  faults.push(html ? `${what}: ${html}` : what);
};
const all = (selector) => Array.from(document.querySelectorAll(selector));
const isShown = (element) => {
  if (element.closest("[hidden], dialog:not([open]), .unseen")) return false;
  if (element.closest("details:not([open]) > :not(summary)")) return false;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return style.visibility !== "hidden" && style.display !== "none" && box.width > 0 && box.height > 0;
};

// Language, title, landmarks, headings.
if (!document.documentElement.lang) say("no language");
if (!document.title.trim()) say("no title");
if (all("main").length !== 1) say("not one main");
if (all("h1").filter((h) => h.closest("main")).length !== 1) say(`not one h1 but ${all("main h1").length}`);
if (!document.querySelector('meta[name="viewport"]')) say("no viewport");
let level = 0;
for (const heading of all("main h1, main h2, main h3, main h4")) {
  if (!isShown(heading)) continue;
  const own = Number(heading.tagName[1]);
  if (own > level + 1) say(`heading of level ${own} after level ${level}`, heading);
  if (!heading.textContent.trim()) say("a heading without words", heading);
  level = own;
}
for (const nav of all("nav, section, form[role=search]")) {
  const by = nav.getAttribute("aria-labelledby");
  const name = nav.getAttribute("aria-label") || (by && document.getElementById(by)?.textContent);
  if (!name || !name.trim()) say("a landmark without a name", nav);
}

// Names of controls, unique ids, references that lead somewhere.
const nameOf = (element) => {
  const by = element.getAttribute("aria-labelledby");
  if (by) return by.split(" ").map((id) => document.getElementById(id)?.textContent || "").join(" ").trim();
  if (element.getAttribute("aria-label")) return element.getAttribute("aria-label").trim();
  if (element.labels && element.labels.length) return Array.from(element.labels).map((label) => label.textContent).join(" ").trim();
  if (["A", "BUTTON", "SUMMARY"].includes(element.tagName)) return element.textContent.trim();
  return "";
};
const controls = all("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']");
for (const control of controls) {
  if (control.matches("pre")) continue;
  if (!nameOf(control)) say("a control without a name", control);
}
const ids = new Map();
for (const element of all("[id]")) {
  if (ids.has(element.id)) say(`the id ${element.id} twice`, element);
  ids.set(element.id, element);
}
for (const use of all("svg use")) {
  if (!document.querySelector(use.getAttribute("href"))) say("a glyph that is not there", use);
}
for (const svg of all("svg")) {
  if (svg.getAttribute("aria-hidden") !== "true" && !svg.getAttribute("aria-label")) say("a picture without words", svg);
}
for (const table of all("table")) {
  if (!table.querySelector("caption")) say("a table without a caption", table);
  for (const cell of table.querySelectorAll("th")) {
    if (!cell.getAttribute("scope")) say("a heading of a table without scope", cell);
    if (!cell.textContent.trim()) say("a heading of a table without words", cell);
  }
}
for (const time of all("time")) if (!time.dateTime) say("a time without its moment", time);
if (all("[style], [onclick], style, script:not([src])").length) say("something inline");
for (const element of all("[tabindex]")) if (element.tabIndex > 0) say("an order of its own", element);
const skip = document.querySelector("a.skip");
if (document.querySelector("header") && (!skip || !document.querySelector(skip.getAttribute("href")))) say("no way past the head");

// Contrast of computed colours, over what is really behind.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (text) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = "#000";
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
const behind = (element) => {
  const layers = [];
  for (let up = element; up; up = up.parentElement) {
    const colour = rgba(getComputedStyle(up).backgroundColor);
    if (colour[3] > 0) layers.push(colour);
    if (colour[3] === 1) break;
  }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const light = ([r, g, b]) => {
  const [lr, lg, lb] = [r, g, b].map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * lr + 0.7152 * lg + 0.0722 * lb;
};
const contrast = (one, other) => {
  const [brighter, darker] = [light(one), light(other)].sort((a, b) => b - a);
  return (brighter + 0.05) / (darker + 0.05);
};
const seen = new Set();
for (const element of all("body *")) {
  const hasText = Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!hasText || !isShown(element) || element.closest("svg")) continue;
  const style = getComputedStyle(element);
  const back = behind(element);
  const ratio = contrast(over(rgba(style.color), back), back);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const key = `${style.color} ${back} ${element.className}`;
  if (ratio < (isLarge ? 3 : 4.5) && !seen.has(key)) {
    seen.add(key);
    say(`contrast ${ratio.toFixed(2)} of ${style.color} on ${back.slice(0, 3).map(Math.round)}`, element);
  }
}

// Nothing wider than the page; targets that a finger hits (WCAG 2.5.8: 24 px, but in a sentence).
if (document.documentElement.scrollWidth > document.documentElement.clientWidth + 1) {
  say(`wider than the page by ${document.documentElement.scrollWidth - document.documentElement.clientWidth} px`);
  for (const element of all("body *")) {
    const box = element.getBoundingClientRect();
    if (box.right > document.documentElement.clientWidth + 1 && !element.closest(".scroll, nav, svg, pre, .unseen, .skip")) {
      say(`reaches ${Math.round(box.right)} px`, element);
      break;
    }
  }
}
for (const control of all("button, input:not([type=hidden]), select, textarea, summary, .button, .choices a, .head nav a, .cells a")) {
  if (!isShown(control)) continue;
  const box = control.getBoundingClientRect();
  if (box.width < 24 - 0.5 || box.height < 24 - 0.5) say(`a target of ${Math.round(box.width)} by ${Math.round(box.height)} px`, control);
}
return faults;
