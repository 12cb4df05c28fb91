// SPDX-License-Identifier: Apache-2.0
// The page: state from the address, the list that holds only the rows in view, keys, and the two tabs.
"use strict";

const ROW = 60;
const byId = (id) => document.getElementById(id);

function start() {
  const data = JSON.parse(byId("data").textContent);
  byId("data").remove();
  const entries = indexGroups(data);
  const form = byId("filters");
  const list = byId("list");
  const rows = byId("rows");
  const narrow = window.matchMedia("(max-width: 820px)");
  let state = fromHash(location.hash);
  let shown = [];
  let current = -1;
  let curvesAreDrawn = false;

  function field(name) {
    return form.elements.namedItem(name);
  }

  function describe() {
    const { run } = data;
    byId("run-name").textContent = run.name;
    const parts = [run.trainer, run.model].filter(Boolean);
    if (run.last_step !== null) parts.push(`${run.last_step} steps logged`);
    if (run.finished === false) parts.push("not finished");
    parts.push(`written ${run.written}`);
    byId("run-about").textContent = parts.join(", ");
    if (data.notes.length) {
      byId("notes").hidden = false;
      byId("notes").querySelector("summary").textContent = data.notes.length === 1 ? "1 note on what is shown" : `${data.notes.length} notes on what is shown`;
      byId("notes").querySelector("ul").append(...data.notes.map((note) => make("li", {}, note)));
    }
  }

  function prepareForm() {
    const option = (value, text) => make("option", { value }, text);
    const rewards = data.rewards.map((reward) => option(reward.name, label(reward.name)));
    const isWeighted = data.rewards.length > 0 && data.rewards.every((reward) => reward.weight !== null);
    if (isWeighted) rewards.unshift(option("", "all, weighted"));
    field("reward").append(...rewards);
    const sources = [...new Set(data.groups.map((group) => group.source ?? ""))].filter(Boolean).sort();
    field("source").append(option("", "all"), ...sources.map((source) => option(source, source)));
    byId("source-field").hidden = sources.length < 2;
    const steps = data.groups.map((group) => group.step);
    if (steps.length) {
      field("from").placeholder = steps.reduce((one, other) => Math.min(one, other));
      field("to").placeholder = steps.reduce((one, other) => Math.max(one, other));
    }
    const kinds = form.elements.namedItem("kind").options;
    if (data.right) for (const kind of kinds) if (["wrong", "right"].includes(kind.value)) kind.title = `by ${data.right}`;
  }

  function fillForm() {
    for (const name of FILTERS) {
      const input = field(name);
      input.value = state.filter[name] || "";
      // an address may name what this run has not
      if (input.tagName === "SELECT" && input.selectedIndex < 0) input.selectedIndex = 0;
    }
  }

  function readForm() {
    const filter = {};
    for (const name of FILTERS) if (field(name).value) filter[name] = field(name).value;
    return filter;
  }

  function remember() {
    const hash = toHash(state);
    if (`#${hash}` !== location.hash && (hash || location.hash)) history.replaceState(null, "", hash ? `#${hash}` : "#");
  }

  // ---- the list

  function rowOf(place) {
    const entry = shown[place];
    const { group } = entry;
    const key = group.images.find((one) => data.images[one]);
    const thumb = make("span", { class: "thumb" }, key ? make("img", { src: data.images[key], alt: "", loading: "lazy" }) : null);
    const marks = make("span", { class: "marks" }, ...entry.right.map((value) => make("i", { class: grade(value) })));
    const right = entry.right.filter((value) => value !== null && value >= 1).length;
    const words = entry.kind === "unscored" ? "not scored" : `${right} of ${entry.right.length} right`;
    const row = make(
      "div",
      { class: "row", role: "option", id: `row-${place}`, "aria-selected": String(place === current), "aria-posinset": place + 1, "aria-setsize": shown.length },
      thumb,
      make("span", { class: "row-title" }, `Step ${group.step}`, make("small", {}, group.id ?? `group ${group.group}`)),
      marks,
      make("span", { class: "row-words" }, words),
    );
    row.style.top = `${place * ROW}px`;
    row.addEventListener("click", () => open(place, true));
    return row;
  }

  function drawRows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    rows.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, index) => rowOf(first + index)));
    if (current >= 0) list.setAttribute("aria-activedescendant", `row-${current}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function scrollToRow(place, isChosen) {
    const top = place * ROW;
    const isInView = top >= list.scrollTop && top + ROW <= list.scrollTop + list.clientHeight;
    if (!isChosen && !isInView) list.scrollTop = ROW * Math.round((top - list.clientHeight / 3) / ROW);
    else if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }

  function apply() {
    const filter = { ...state.filter };
    shown = select(entries, filter, data);
    rows.style.height = `${shown.length * ROW}px`;
    const of = shown.length === entries.length ? "" : ` of ${entries.length}`;
    byId("count").textContent = entries.length ? `${shown.length}${of} groups` : "";
    byId("clear").disabled = !FILTERS.some((name) => state.filter[name]);
    const place = shown.findIndex((entry) => entry.key === state.at);
    open(place >= 0 ? place : shown.length && !narrow.matches ? 0 : -1, false);
  }

  // ---- one group

  function zoom(source, name) {
    const image = byId("zoom").firstElementChild;
    image.src = source;
    image.alt = name;
    byId("zoom").showModal();
  }

  function open(place, isChosen) {
    current = place;
    const detail = byId("detail");
    if (place < 0) {
      state.at = "";
      let text = "Choose a group to see its completions.";
      if (!entries.length) text = data.notes[0] || "There are no completions in this file.";
      else if (!shown.length) text = "No group passes these filters.";
      detail.replaceChildren(make("p", { class: "empty" }, text));
    } else {
      const entry = shown[place];
      if (isChosen || entry.key === state.at) state.at = entry.key;
      const head = showDetail(detail, entry, data, zoom);
      const step = (name, key, to) => {
        const button = make("button", { type: "button", title: `${name} group (${key})`, disabled: to < 0 || to >= shown.length }, name);
        button.addEventListener("click", () => open(to, true));
        return button;
      };
      const back = make("button", { type: "button", class: "back" }, "All groups");
      back.addEventListener("click", () => { document.body.dataset.pane = "list"; });
      head.append(make("nav", { "aria-label": "Groups" }, back, step("Previous", "k", place - 1), make("span", { class: "position" }, `${place + 1} / ${shown.length}`), step("Next", "j", place + 1)));
      detail.scrollTop = 0;
      if (isChosen) document.body.dataset.pane = "detail";
    }
    if (isChosen) window.scrollTo(0, 0);
    scrollToRow(Math.max(0, place), isChosen);
    drawRows();
    remember();
  }

  function move(by) {
    if (!shown.length) return;
    open(Math.max(0, Math.min(shown.length - 1, current + by)), true);
  }

  // ---- tabs

  function showTab(tab) {
    state.tab = tab;
    for (const name of ["rollouts", "curves"]) {
      byId(name).hidden = name !== tab;
      byId(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
      byId(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    }
    if (tab === "curves" && !curvesAreDrawn) {
      curvesAreDrawn = true;
      showCurves(byId("curves"), data.curves, (step) => {
        state.filter = { from: String(step), to: String(step) };
        fillForm();
        showTab("rollouts");
        apply();
      });
    }
    if (tab === "rollouts") drawRows();
    remember();
  }

  // ---- events

  form.addEventListener("submit", (event) => event.preventDefault());
  for (const kind of ["input", "change"]) {
    form.addEventListener(kind, () => {
      const before = toHash(state);
      state.filter = readForm();
      if (toHash(state) !== before) apply();
    });
  }
  byId("clear").addEventListener("click", (event) => {
    event.preventDefault();
    state.filter = {};
    fillForm();
    apply();
  });
  let isDue = false;
  list.addEventListener("scroll", () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      drawRows();
    });
  });
  window.addEventListener("resize", drawRows);
  for (const name of ["rollouts", "curves"]) byId(`tab-${name}`).addEventListener("click", () => showTab(name));
  byId("zoom").addEventListener("click", () => byId("zoom").close());
  window.addEventListener("hashchange", () => {
    state = fromHash(location.hash);
    fillForm();
    showTab(state.tab);
    apply();
    if (state.at && current >= 0 && narrow.matches) document.body.dataset.pane = "detail";
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || byId("zoom").open) return;
    const isField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape" && isField) event.target.blur();
    else if (event.key === "Escape") document.body.dataset.pane = "list";
    else if (isField) return;
    else if (event.target.getAttribute("role") === "tab" && /^Arrow(Left|Right)$/.test(event.key)) {
      showTab(state.tab === "curves" ? "rollouts" : "curves");
      byId(`tab-${state.tab}`).focus();
    } else if (state.tab !== "rollouts") return;
    else if (event.key === "j" || event.key === "ArrowRight") move(1);
    else if (event.key === "k" || event.key === "ArrowLeft") move(-1);
    else if (event.target === list && ["ArrowDown", "ArrowUp", "Home", "End", "Enter"].includes(event.key)) {
      event.preventDefault();
      move({ ArrowDown: 1, ArrowUp: -1, Home: -shown.length, End: shown.length, Enter: 0 }[event.key]);
    } else if (event.key === "/") {
      event.preventDefault();
      field("q").focus();
    }
  });

  document.body.dataset.pane = state.at ? "detail" : "list";
  describe();
  prepareForm();
  fillForm();
  showTab(state.tab);
  apply();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

if (typeof document !== "undefined") start();
