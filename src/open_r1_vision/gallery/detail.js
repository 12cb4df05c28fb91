// SPDX-License-Identifier: Apache-2.0
// One group: image, question and gold on one side, its completions beside each other on the other.
"use strict";

const LONG = 1400;

/** A reward's name as it is shown. */
function label(name) {
  return name.replace(/_reward$/, "").replaceAll("_", " ");
}

/** Where a score stands: `full`, `none`, `part` or `unscored`. */
function grade(value) {
  if (typeof value !== "number") return "unscored";
  return value >= 1 ? "full" : value <= 0 ? "none" : "part";
}

function cutMark(count) {
  return make("span", { class: "cut" }, `${count.toLocaleString("en")} characters are not in this file`);
}

/** A text in a box that shows its beginning, and all of it when asked. */
function boxed(node, text) {
  const box = make("div", { class: "text" }, node);
  const full = plain(text);
  if (full.length > LONG || full.split("\n").length > 24) {
    box.classList.add("clamped");
    const more = make("button", { type: "button", class: "more" }, `Show all ${full.length.toLocaleString("en")} characters`);
    more.addEventListener("click", () => {
      const isClamped = box.classList.toggle("clamped");
      more.textContent = isClamped ? `Show all ${full.length.toLocaleString("en")} characters` : "Show less";
    });
    return make("div", {}, box, more);
  }
  return box;
}

function written(text, inside = null) {
  const node = make("div", { class: "written", dir: "auto" });
  for (const part of segments(text, inside)) {
    if (part.cut !== undefined) node.append(cutMark(part.cut));
    else if (part.tag) node.append(make("span", { class: "tag" }, part.text));
    else node.append(part.inside ? make("span", { class: `in-${part.inside}` }, part.text) : part.text);
  }
  return node;
}

function folded(title, text, isOpen) {
  const node = make("details", { open: isOpen }, make("summary", {}, title), boxed(written(text), text));
  return node;
}

function meter(name, value) {
  const bar = make("span", { class: `bar ${grade(value)}` }, make("i", {}));
  bar.firstChild.style.width = `${100 * Math.max(0, Math.min(1, value ?? 0))}%`;
  const shown = make("span", { class: "value" }, short(value));
  return make("div", { class: "reward", title: name }, make("span", { class: "reward-name" }, label(name)), bar, shown);
}

function advantageBar(value) {
  const bar = make("span", { class: "diverging" }, make("i", { class: value < 0 ? "minus" : "plus" }));
  const half = 50 * Math.min(1, Math.abs(value) / 2.5);
  bar.firstChild.style.width = `${half}%`;
  bar.firstChild.style.left = value < 0 ? `${50 - half}%` : "50%";
  const shown = (value > 0 ? "+" : "") + short(value).replace("-", "\u2212");
  return make("div", { class: "reward" }, make("span", { class: "reward-name" }, "advantage"), bar, make("span", { class: "value" }, shown));
}

function factList(facts, verdicts) {
  const list = make("ul", { class: "facts" });
  facts.forEach((fact, place) => {
    const verdict = verdicts ? verdicts[place] : null;
    const word = verdict === null ? "no verdict" : verdict ? "stated" : "not stated";
    list.append(make("li", { class: verdict === null ? "open" : verdict ? "stated" : "unstated" }, make("span", { class: "mark" }, word), ` ${plain(fact)}`));
  });
  return list;
}

function readerPart(one) {
  if (one.caption === undefined && one.reader_reply === undefined && one.caption_answer === undefined) return null;
  const part = make("section", { class: "aside" }, make("h4", {}, "Caption and its reader"));
  if (one.caption === undefined) part.append(make("p", { class: "quiet" }, "This completion has no caption."));
  else if (plain(one.caption).trim() === plain(one.text).trim()) part.append(make("p", { class: "quiet" }, "The whole completion is the caption."));
  else part.append(boxed(make("p", { class: "written caption", dir: "auto" }, plain(one.caption)), one.caption));
  if (one.has_description === false) part.append(make("p", { class: "quiet" }, "Judged to be no description."));
  if (one.caption_answer !== undefined) {
    part.append(make("p", {}, make("span", { class: "quiet" }, "Read from it: "), make("b", {}, plain(one.caption_answer))));
  }
  if (one.reader_reply !== undefined) part.append(folded("Reader's reply", one.reader_reply, false));
  return part;
}

function factsPart(one, facts) {
  if (!facts.length || (!one.verdicts && one.judge_reply === undefined)) return null;
  const stated = one.verdicts ? one.verdicts.reduce((sum, verdict) => sum + verdict, 0) : null;
  const title = stated === null ? "Visual facts: the judge gave no verdict" : `Visual facts: ${stated} of ${facts.length} stated`;
  const part = make("section", { class: "aside" }, make("h4", {}, title), factList(facts, one.verdicts || null));
  if (one.judge_reply !== undefined) part.append(folded("Judge's reply", one.judge_reply, false));
  return part;
}

function completionCard(one, place, group, data) {
  const head = make("header", {}, make("h3", {}, `Completion ${place + 1}`));
  const sum = total(one, data.rewards);
  if (sum !== null) head.append(make("span", { class: "total", title: "weighted sum of the rewards" }, `reward ${short(sum)}`));
  const rewards = make("div", { class: "rewards" });
  data.rewards.forEach((reward, index) => rewards.append(meter(reward.name, (one.rewards || [])[index])));
  if (typeof one.advantage === "number") rewards.append(advantageBar(one.advantage));
  const body = make("div", { class: "body" });
  const right = data.rewards.findIndex((reward) => reward.name === data.right);
  if (one.hint !== undefined) {
    body.append(make("div", { class: "hint" }, make("h4", {}, `Hint, level ${one.hint_level ?? "unknown"}`), boxed(written(one.hint), one.hint)));
  }
  body.append(plain(one.text) || Array.isArray(one.text) ? boxed(written(one.text, leftOpen(one.hint)), one.text) : make("p", { class: "quiet" }, "An empty completion."));
  const extras = [readerPart(one), factsPart(one, group.facts)];
  for (const [name, text] of Object.entries(one.more || {})) extras.push(folded(name, text, plain(text).length < 80));
  const kind = right < 0 ? "unscored" : grade((one.rewards || [])[right]);
  const card = make("article", { class: `card ${kind}` }, head, rewards, body);
  card.append(...extras.filter(Boolean));
  return card;
}

function pictures(group, data, zoom) {
  const box = make("div", { class: "pictures" });
  group.images.forEach((key, place) => {
    const name = `Image ${place + 1} of ${group.images.length} of row ${group.id ?? ""}`;
    if (!data.images[key]) {
      box.append(make("p", { class: "missing" }, "This image is not in the file."));
      return;
    }
    const button = make("button", { type: "button", class: "picture", "aria-label": `${name}: enlarge` }, make("img", { src: data.images[key], alt: name }));
    button.addEventListener("click", () => zoom(data.images[key], name));
    box.append(button);
  });
  return group.images.length ? box : null;
}

function question(group, data) {
  const box = make("div", { class: "prompt" });
  for (const [role, place] of group.prompt) {
    const text = data.texts[place];
    if (role === "system" || role === "assistant") box.append(folded(role === "system" ? "System prompt" : "Earlier reply", text, false));
    else {
      box.append(make("h4", {}, "Prompt"), boxed(written(Array.isArray(text) ? text : text.replace(/^(\[image\]\n)+/, "")), text));
    }
  }
  if (group.gold !== null) box.append(make("h4", {}, "Gold answer"), make("p", { class: "gold", dir: "auto" }, plain(group.gold)));
  return box;
}

/** Show a group in an element. */
function showDetail(root, entry, data, zoom) {
  const { group } = entry;
  const about = make("p", { class: "about" });
  if (group.id !== null) about.append(make("span", {}, group.id));
  if (group.source) about.append(make("span", {}, group.source));
  const right = entry.right.filter((value) => value !== null && value >= 1).length;
  if (data.right && entry.kind !== "unscored") about.append(make("span", {}, `${label(data.right)}: ${right} of ${entry.right.length} right`));
  const level = group.completions[0].hint_level;
  if (level) about.append(make("span", {}, `hint level ${level}`));
  if (isFlat(group, data.rewards)) about.append(make("span", {}, "no signal"));
  const head = make("header", { class: "group-head" }, make("div", {}, make("h2", {}, `Step ${group.step}, group ${group.group}`), about));
  const texts = question(group, data);
  const side = make("aside", { class: "side" }, pictures(group, data, zoom), texts);
  if (group.facts.length) {
    texts.append(make("h4", {}, "Visual facts"), make("ul", { class: "plain-facts" }, ...group.facts.map((fact) => make("li", { dir: "auto" }, plain(fact)))));
  }
  const cards = make("div", { class: "cards" }, ...group.completions.map((one, place) => completionCard(one, place, group, data)));
  root.replaceChildren(head, make("div", { class: "group-body" }, side, cards));
  return head;
}
