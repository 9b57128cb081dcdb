// Asks the service that is shown. The token comes with the address (after #token=) or is typed; it stays in this tab.

import { element } from "./elements.js";
import { milliseconds } from "./words.js";

const byId = (id) => document.getElementById(id);
const TOKEN = "drift-console-token";

export class Chat {
  constructor() {
    this.service = null;
    this.messages = [];
    this.asking = null;
    byId("token").value = sessionStorage.getItem(TOKEN) ?? "";
    byId("token").addEventListener("change", (event) => this.keep(event.target.value));
    byId("keys").addEventListener("submit", (event) => event.preventDefault());
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask(byId("question").value.trim());
    });
    byId("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        byId("ask").requestSubmit();
      }
    });
    byId("stop").addEventListener("click", () => this.asking?.abort());
    byId("forget").addEventListener("click", () => this.forget());
  }

  keep(token) {
    byId("token").value = token;
    sessionStorage.setItem(TOKEN, token);
  }

  show(told) {
    const service = told.service;
    byId("chat").hidden = !(told.chat && service?.can_chat);
    if (service && `${service.namespace}/${service.name}` !== this.named) {
      this.named = `${service.namespace}/${service.name}`;
      this.service = { namespace: service.namespace, name: service.name };
      byId("chat-title").textContent = `Ask ${service.model} (${this.named})`;
      this.forget();
    }
  }

  forget() {
    this.asking?.abort();
    this.messages = [];
    byId("answers").replaceChildren();
    byId("timing").textContent = "";
  }

  async ask(question) {
    if (!question || this.asking || !this.service) return;
    const asking = (this.asking = new AbortController());
    const messages = [...this.messages, { role: "user", content: question }];
    byId("question").value = "";
    this.line("user", question);
    const place = this.line("assistant", "");
    this.busy(true);
    try {
      const answer = await this.answer(messages, place, asking.signal);
      if (asking === this.asking) this.messages = [...messages, { role: "assistant", content: answer }];
    } catch (error) {
      if (error.name !== "AbortError") {
        place.className = "failed";
        place.textContent = error.message;
      }
    } finally {
      if (asking === this.asking) this.asking = null;
      this.busy(false);
    }
  }

  async answer(messages, place, signal) {
    const startMs = performance.now();
    const timesMs = [];
    const response = await fetch("v1/chat", {
      method: "POST",
      headers: { authorization: `Bearer ${byId("token").value.trim()}`, "content-type": "application/json" },
      body: JSON.stringify({ ...this.service, messages, api_key: byId("api-key").value.trim() }),
      credentials: "omit",
      signal,
    });
    if (!response.ok) throw new Error((await response.json().catch(() => null))?.error?.message ?? `status ${response.status}`);
    let ended = false;
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        ended = true;
        break;
      }
      const part = JSON.parse(data);
      if (part.error) throw new Error(part.error.message);
      const text = part.choices?.[0]?.delta?.content ?? "";
      if (!text) continue;
      timesMs.push(performance.now());
      place.append(text);
      byId("answers").scrollTop = byId("answers").scrollHeight;
      byId("timing").textContent = timing(startMs, timesMs);
    }
    if (!ended) throw new Error(`${place.textContent}\n(the answer broke off)`);
    return place.textContent;
  }

  line(role, text) {
    const made = element("p", { class: role }, text);
    byId("answers").append(made);
    byId("answers").scrollTop = byId("answers").scrollHeight;
    return made;
  }

  busy(asking) {
    byId("stop").disabled = !asking;
    byId("ask").querySelector("button[type=submit]").disabled = asking;
  }
}

// As this browser saw it: the way through the console is in it.
function timing(startMs, timesMs) {
  const first = `first token after ${milliseconds(timesMs[0] - startMs)}`;
  const gaps = timesMs.length - 1;
  return gaps ? `${first}, then ${milliseconds((timesMs[gaps] - timesMs[0]) / gaps)} between tokens` : first;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}
