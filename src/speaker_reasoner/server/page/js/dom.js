/** Small tools for the document. Data only ever becomes text nodes, attributes or CSSOM values. */

export const $ = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag
 * @param {Object} props attributes by their names; `on<event>` listens instead, `vars` sets custom
 *     properties. Those that are null, undefined or false are left out.
 * @param {...(Node|string|null|false)} children
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "vars") setVars(node, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== false));
  return node;
}

export function setVars(node, vars) {
  for (const [name, value] of Object.entries(vars)) node.style.setProperty(`--${name}`, value);
}

/** Take a class from the nodes of some ids and give it to those of others. */
export function markOnly(before, after, name, nodeOf) {
  for (const id of before) if (!after.has(id)) nodeOf(id)?.classList.remove(name);
  for (const id of after) nodeOf(id)?.classList.add(name);
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Seconds as `m:ss` or `h:mm:ss`, with `decimals` of a second. */
export function clock(seconds, decimals = 0) {
  const unit = 10 ** decimals;
  const ticks = (decimals ? Math.round : Math.floor)(Math.max(0, seconds) * unit);
  const s = (ticks / unit) % 60, m = Math.floor(ticks / unit / 60) % 60, hours = Math.floor(ticks / unit / 3600);
  const tail = s.toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
  return hours ? `${hours}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
}

/** What `clock` wrote, or plain seconds, back to seconds; null if it is neither. */
export function parseClock(text) {
  const found = /^\s*(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)\s*$/.exec(text);
  if (!found) return null;
  const [, hours = 0, minutes = 0, seconds] = found;
  return hours * 3600 + minutes * 60 + Number(seconds.replace(",", "."));
}

export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** `["female", "male", "female"]` as "3 speakers: 2 female, 1 male". */
export function describe(genders) {
  const parts = ["female", "male", "unknown"].map((gender) => [genders.filter((g) => g === gender).length, gender]);
  const said = parts.filter(([n]) => n).map(([n, gender]) => `${n} ${gender === "unknown" ? "not sure" : gender}`);
  return count(genders.length, "speaker") + (said.length ? `: ${said.join(", ")}` : "");
}

/**
 * Ask something. @param {Array} answers `[label, value, class]`; Escape gives the last one's value.
 * @returns {Promise<*>} the value of the answer.
 */
export function ask(title, text, answers) {
  const dialog = $("ask");
  return new Promise((resolve) => {
    let value = answers.at(-1)[1];
    const buttons = answers.map(([label, mine, kind], k) => h("button", {
      type: "button", class: `button ${kind ?? (k ? "" : "primary")}`, onclick: () => { value = mine; dialog.close(); },
    }, label));
    $("ask-title").textContent = title;
    dialog.querySelector(".dialog-body").replaceChildren(...[text].flat().map((one) => (one instanceof Node ? one : h("p", {}, one))), h("p", { class: "answers" }, ...buttons));
    dialog.addEventListener("close", () => resolve(value), { once: true });
    dialog.showModal();
    buttons.at(-1).focus();
  });
}

/** Say something for a few seconds; `action` is `[label, function]`. @returns {HTMLElement} to take it back. */
export function notice(text, { action = null, bad = false, lasting = false } = {}) {
  const node = h("div", { class: bad ? "notice bad" : "notice" }, h("span", {}, text));
  if (action) node.append(h("button", { type: "button", onclick: () => { node.remove(); action[1](); } }, action[0]));
  node.append(h("button", { type: "button", class: "icon", "aria-label": "Dismiss", onclick: () => node.remove() }, icon("close")));
  const place = $("notices");
  place.append(node);
  while (place.children.length > 3) place.firstChild.remove();
  if (!lasting) setTimeout(() => node.remove(), bad ? 12000 : 6000);
  return node;
}

/**
 * Open a menu at an element.
 * @param {HTMLElement} anchor gets the focus back.
 * @param {Array} items `{label, run, icon, paint, note, disabled, bad}`, a string for a heading, null for a rule.
 */
export function menu(anchor, items) {
  const node = $("menu");
  const parts = items.map((item) => {
    if (item === null) return h("hr", { role: "separator" });
    if (typeof item === "string") return h("p", { role: "presentation" }, item);
    return h(
      "button",
      {
        type: "button", role: "menuitem", tabindex: "-1", disabled: item.disabled, class: item.bad && "bad",
        onclick: () => { node.hidePopover(); anchor.focus(); item.run(); },
      },
      item.icon ? icon(item.icon) : null,
      item.paint !== undefined ? h("i", { class: `dot ${item.paint}` }) : null,
      h("span", {}, item.label),
      item.note ? h("small", {}, item.note) : null,
    );
  });
  node.replaceChildren(...parts);
  node.showPopover();
  const at = anchor.getBoundingClientRect(), size = node.getBoundingClientRect();
  const below = at.bottom + size.height + 12 < innerHeight || at.top < size.height + 12;
  const right = document.body.getBoundingClientRect().right; // beside the scrollbar's gutter, which covers it
  node.style.left = `${Math.max(8, Math.min(at.left, right - size.width - 8))}px`;
  node.style.top = `${Math.max(8, Math.min(below ? at.bottom + 4 : at.top - size.height - 4, innerHeight - size.height - 8))}px`;
  const buttons = [...node.querySelectorAll("button:enabled")];
  node.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Tab") event.preventDefault();
    if (event.key === "Escape" || event.key === "Tab") { node.hidePopover(); anchor.focus(); }
    if (step) buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
    if (step) event.preventDefault();
    event.stopPropagation();
  };
  buttons[0]?.focus();
}

/** Put an input in an element's place until Enter or leaving (saves) or Escape (does not). */
export function rename(node, value, label, save) {
  const input = h("input", { class: "rename", value, "aria-label": label, maxlength: "80" });
  let over = false;
  const end = (keep) => {
    if (over) return;
    over = true;
    input.replaceWith(node);
    node.focus();
    const name = input.value.trim();
    if (keep && name && name !== value) save(name);
  };
  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault(); // else the key goes on to press the node that has the focus now
    end(event.key === "Enter");
  });
  input.addEventListener("blur", () => end(true));
  node.replaceWith(input);
  input.select();
  input.focus();
}
