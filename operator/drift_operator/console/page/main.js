// The page: a stream of documents, each the whole of what is shown. The address after # says which service.

import { Chat } from "./chat.js";
import { element, update } from "./elements.js";
import { service } from "./service.js";
import { address, list } from "./services.js";
import { Stream } from "./stream.js";
import { span, title } from "./words.js";

const place = (id) => document.getElementById(id);
const chat = new Chat();

function chosen() {
  const [namespace, name] = location.hash.replace(/^#\//, "").split("/").map(decoded);
  return location.hash.startsWith("#/") && name !== undefined ? { namespace, name } : null;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show(told) {
  const wanted = chosen();
  if (!wanted && told.services.length) {
    history.replaceState(null, "", address(told.services[0]));
    follow();
  }
  update(place("services"), list(told, chosen()));
  update(place("view"), told.service ? service(told.service) : nothing(told, wanted));
  chat.show(told);
  const worst = told.service ? `${told.service.verdict}: ${title(told.service.namespace, told.service.name)} – ` : "";
  document.title = `${worst}Drift`;
}

function nothing(told, wanted) {
  if (wanted) return [element("p", { class: "quiet" }, `There is no service ${title(wanted.namespace, wanted.name)}.`)];
  return [element("p", { class: "quiet" }, told.services.length ? "Choose a service." : "No DriftService is known here. `kubectl apply -f` one, and it shows up.")];
}

function standing({ lost, ageS }) {
  const says = lost ? "Connection lost; trying again." : ageS === null ? "connecting" : "live";
  // A screen reader tells it when it changes; the age, every second, it does not.
  if (place("standing").textContent !== says) place("standing").textContent = says;
  place("age").textContent = lost && ageS !== null ? `What is shown is ${span(ageS)} old.` : "";
  place("connection").className = lost ? "lost" : "";
  document.body.classList.toggle("stale", lost && ageS !== null);
}

const stream = new Stream(show, standing);

function follow() {
  const wanted = chosen();
  stream.follow(wanted ? `${wanted.namespace}/${wanted.name}` : null);
}

const given = location.hash.match(/^#token=(.+)$/);
if (given) {
  chat.keep(decoded(given[1]));
  history.replaceState(null, "", location.pathname);
}
addEventListener("hashchange", () => {
  follow();
  place("view").focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // what stands after # is the service
  place("view").focus();
});
follow();
