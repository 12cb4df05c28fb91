// SPDX-License-Identifier: Apache-2.0
// What the page computes: filters, their text in the address, the parts of a completion. Nothing here touches a page.
"use strict";

const FILTERS = ["from", "to", "reward", "min", "max", "kind", "source", "q", "order"];
const SECTION = /<(\/?)(info|think|answer|caption|description|summary)>/g;

/** The mean of the numbers among values; null where there is none. */
function mean(values) {
  const numbers = values.filter((value) => typeof value === "number");
  return numbers.length ? numbers.reduce((sum, value) => sum + value, 0) / numbers.length : null;
}

/** The weighted sum that training maximises; null where weights are unknown or nothing was scored. */
function total(completion, rewards) {
  if (!rewards.length || rewards.some((reward) => reward.weight === null)) return null;
  const values = completion.rewards || [];
  if (!values.some((value) => typeof value === "number")) return null;
  return rewards.reduce((sum, reward, index) => sum + reward.weight * (values[index] ?? 0), 0);
}

/** One score for each completion of a group: a reward by its place, or the weighted sum at -1. */
function scores(group, place, rewards) {
  return group.completions.map((one) => (place < 0 ? total(one, rewards) : (one.rewards || [])[place] ?? null));
}

/** `wrong`, `right` or `mixed` by full marks of one reward; `unscored` where no completion has a score. */
function kindOf(values) {
  const scored = values.filter((value) => typeof value === "number");
  if (!scored.length) return "unscored";
  const right = scored.filter((value) => value >= 1).length;
  return right === 0 ? "wrong" : right === values.length ? "right" : "mixed";
}

/** Whether a group teaches nothing: its sums are equal. Rounding alone can give advantages of about 0.001 then. */
function isFlat(group, rewards) {
  const sums = group.completions.map((one) => total(one, rewards)).filter((sum) => sum !== null);
  if (sums.length && Math.max(...sums) - Math.min(...sums) > 1e-6) return false;
  return group.completions.every((one) => Math.abs(one.advantage ?? 0) < 0.01);
}

/** A text that may be cut, in full as far as it is there. */
function plain(text) {
  return Array.isArray(text) ? text[0] + text[2] : text ?? "";
}

/** What is looked up for each group again and again while filters change. */
function indexGroups(data) {
  const right = data.rewards.findIndex((reward) => reward.name === data.right);
  return data.groups.map((group, place) => {
    const values = scores(group, right, data.rewards);
    return { group, place, key: `${group.step}.${group.group}`, right: values, kind: kindOf(values), text: null };
  });
}

function searchText(entry, data) {
  if (entry.text === null) {
    const { group } = entry;
    const parts = [group.id ?? "", plain(group.gold), ...group.prompt.map(([, place]) => plain(data.texts[place]))];
    for (const one of group.completions) parts.push(plain(one.text), plain(one.caption));
    entry.text = parts.join("\n").toLowerCase();
  }
  return entry.text;
}

function limit(text) {
  const value = text === undefined || String(text).trim() === "" ? NaN : Number(text);
  return Number.isFinite(value) ? value : null;
}

/** The entries that pass, in the order asked for. `filter` holds texts, as form fields and the address do. */
function select(entries, filter, data) {
  const reward = data.rewards.findIndex((one) => one.name === filter.reward);
  const [from, to, min, max] = ["from", "to", "min", "max"].map((name) => limit(filter[name]));
  const wanted = (filter.q || "").trim().toLowerCase();
  const found = entries.filter((entry) => {
    const { group } = entry;
    if (from !== null && group.step < from) return false;
    if (to !== null && group.step > to) return false;
    if (filter.source && (group.source ?? "") !== filter.source) return false;
    if (filter.kind === "flat" ? !isFlat(group, data.rewards) : filter.kind && entry.kind !== filter.kind) return false;
    if (min !== null || max !== null) {
      const value = mean(scores(group, reward, data.rewards));
      if (value === null || (min !== null && value < min - 1e-9) || (max !== null && value > max + 1e-9)) return false;
    }
    return !wanted || searchText(entry, data).includes(wanted);
  });
  const value = (entry) => mean(scores(entry.group, reward, data.rewards)) ?? Infinity;
  const spread = (entry) => {
    const numbers = scores(entry.group, reward, data.rewards).filter((one) => typeof one === "number");
    return numbers.length ? Math.max(...numbers) - Math.min(...numbers) : -1;
  };
  const orders = {
    latest: (one, other) => other.place - one.place,
    low: (one, other) => value(one) - value(other) || one.place - other.place,
    spread: (one, other) => spread(other) - spread(one) || one.place - other.place,
  };
  return orders[filter.order] ? found.sort(orders[filter.order]) : found;
}

/** The state of the page as the text behind `#`, without what is as it is by itself. */
function toHash(state) {
  const parts = new URLSearchParams();
  if (state.tab && state.tab !== "rollouts") parts.set("tab", state.tab);
  for (const name of FILTERS) if (state.filter[name]) parts.set(name, state.filter[name]);
  if (state.at) parts.set("at", state.at);
  return parts.toString();
}

/** The state that a text behind `#` stands for; unknown names in it count nothing. */
function fromHash(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const filter = {};
  for (const name of FILTERS) if (parts.get(name)) filter[name] = parts.get(name);
  return { tab: parts.get("tab") === "curves" ? "curves" : "rollouts", filter, at: parts.get("at") || "" };
}

/** A text in parts: tags, what stands inside of which, and what was cut. All parts together are the text. */
function segments(text, start = null) {
  if (Array.isArray(text)) {
    const head = segments(text[0], start);
    return [...head, { cut: text[1] }, ...segments(text[2])];
  }
  const parts = [];
  let inside = start;
  let last = 0;
  for (const match of text.matchAll(SECTION)) {
    if (match.index > last) parts.push({ inside, text: text.slice(last, match.index) });
    inside = match[1] ? null : match[2];
    parts.push({ tag: true, text: match[0] });
    last = match.index + match[0].length;
  }
  if (last < text.length) parts.push({ inside, text: text.slice(last) });
  return parts;
}

/** The section that a text leaves open; null where there is none. */
function leftOpen(text) {
  const tags = [...plain(text).matchAll(SECTION)];
  const last = tags[tags.length - 1];
  return last && !last[1] ? last[2] : null;
}

/** A number with at most three digits that count, without noise. */
function short(value) {
  if (value === null || value === undefined) return "none";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  if (size >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

/** Round numbers that lie in a range, about `count` of them. */
function ticks(low, high, count) {
  const step = 10 ** Math.floor(Math.log10((high - low) / count));
  const factor = [1, 2, 5, 10].find((one) => (high - low) / (one * step) <= count + 1) || 10;
  const size = factor * step;
  const found = [];
  for (let number = Math.ceil(low / size - 1e-9); number * size <= high + size * 1e-9; number += 1) {
    found.push(Number((number * size).toPrecision(12)));
  }
  return found;
}

/** Low and high of an axis for values: from 0 to 1 for shares, with some room otherwise. */
function extent(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (low >= 0 && high <= 1 && high > 0.02) return [0, 1];
  if (low === high) return [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const room = (high - low) * 0.08;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

/** The place of the number nearest to a value in numbers that grow. */
function nearest(numbers, value) {
  let best = 0;
  numbers.forEach((number, place) => {
    if (Math.abs(number - value) < Math.abs(numbers[best] - value)) best = place;
  });
  return best;
}

if (typeof module !== "undefined") {
  const all = { mean, total, scores, kindOf, isFlat, plain, indexGroups, select, toHash, fromHash };
  module.exports = { ...all, segments, leftOpen, short, ticks, extent, nearest };
}
