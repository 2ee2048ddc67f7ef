"use strict";
// Texts go into the page as text only (textContent), never as HTML.

const EXAMPLES = [
  ["How do I boil eggs?",
   "Boil them for 8 minutes. You are clearly too stupid to cook. Then cool them in cold water."],
  ["How do I get my neighbour to turn the music down?",
   "Talk to him calmly and agree on quiet hours. If he refuses, smash his speakers and beat him up."],
  ["What is the capital of France?", "The capital of France is Paris."],
];
const byId = (id) => document.getElementById(id);
let running = null;

function make(tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}

function setRunning(controller) {
  running = controller;
  byId("correct").disabled = controller !== null;
  byId("stop").disabled = controller === null;
}

function showError(message) {
  byId("error").textContent = message;
  byId("error").hidden = false;
}

function showChanges(correction) {
  const text = Array.from(correction.text); // spans count characters, JavaScript's strings don't
  const parts = [];
  let at = 0;
  for (const edit of correction.edits) {
    const [start, end] = edit.text_span;
    parts.push(document.createTextNode(text.slice(at, start).join("")));
    if (edit.before) parts.push(make("del", edit.before));
    if (edit.after) parts.push(make("ins", edit.after));
    at = end;
  }
  parts.push(document.createTextNode(text.slice(at).join("")));
  byId("text").replaceChildren(...parts);
  byId("legend").hidden = correction.edits.length === 0;
}

function showStats(correction, first) {
  const stats = correction.stats;
  const seconds = (value) => (value === null ? "–" : `${value.toFixed(2)} s`);
  const copied = stats.output_tokens ? stats.copied_tokens / stats.output_tokens : null;
  const rows = [
    ["Time", seconds(stats.seconds)],
    ["First piece after", seconds(first)],
    ["Tokens written", stats.output_tokens],
    ["Copied", copied === null ? "–" : `${Math.round(100 * copied)} %`],
    ["Forward passes", stats.forward_passes],
    ["Similarity", correction.similarity.toFixed(2)],
    ["Near-ties", stats.near_ties],
    ["Aligner", correction.model],
  ];
  byId("stats").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div");
    row.append(make("dt", name), make("dd", value));
    return row;
  }));
}

function describe(correction) {
  if (correction.policy) return `Not corrected (${correction.policy}): ${correction.error}`;
  if (correction.skipped) return `Not read by the aligner: ${correction.skipped}`;
  const count = correction.edits.length;
  if (!correction.changed) return "Nothing had to be changed";
  return count === 1 ? "1 change" : `${count} changes`;
}

function take(event) {
  if (event.error) {
    showError(event.error.message);
    byId("status").textContent = "Failed";
  } else if (event.correction) {
    showChanges(event.correction);
    showStats(event.correction, event.first);
    byId("status").textContent = describe(event.correction);
  } else {
    byId("text").append(document.createTextNode(event.piece));
  }
}

async function readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) take(JSON.parse(event.slice(6)));
    }
  }
}

async function correct() {
  const controller = new AbortController();
  setRunning(controller);
  byId("result").hidden = false;
  byId("error").hidden = true;
  byId("legend").hidden = true;
  byId("text").replaceChildren();
  byId("stats").replaceChildren();
  byId("status").textContent = "Correcting …";
  const headers = { "content-type": "application/json" };
  const key = byId("key").value.trim();
  if (key) headers.authorization = `Bearer ${key}`;
  try {
    const response = await fetch("aligner/stream", {
      method: "POST",
      headers,
      body: JSON.stringify({ question: byId("question").value, answer: byId("answer").value }),
      signal: controller.signal,
    });
    if (response.ok) {
      await readEvents(response);
      if (byId("status").textContent === "Correcting …") throw new Error("it broke off");
    } else {
      if (response.status === 401) byId("key-box").open = true;
      const body = await response.json().catch(() => null);
      showError(body?.error?.message ?? `The gateway answered with status ${response.status}.`);
      byId("status").textContent = "Failed";
    }
  } catch (error) {
    const stopped = controller.signal.aborted;
    byId("status").textContent = stopped ? "Stopped" : "Failed";
    if (!stopped) showError(`The connection to the gateway failed: ${error.message}`);
  } finally {
    setRunning(null);
  }
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running === null) correct();
});
byId("stop").addEventListener("click", () => running?.abort());
document.querySelectorAll("[data-example]").forEach((button) => {
  button.addEventListener("click", () => {
    [byId("question").value, byId("answer").value] = EXAMPLES[Number(button.dataset.example)];
  });
});
