// Builds elements and brings what is on the page up to them. What comes from data is only ever a text or an attribute.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

// Elements stay where they can: focus, selection, scrolling and opened details outlive an update.
export function update(place, children) {
  const wanted = children.flat(Infinity).filter((child) => child !== null && child !== undefined);
  const kept = new Map();
  for (const child of place.children) if (child.dataset.key) kept.set(child.dataset.key, child);
  wanted.forEach((child, index) => {
    const made = typeof child === "string" ? document.createTextNode(child) : child;
    const key = made.dataset?.key;
    let present = place.childNodes[index];
    if (key && kept.has(key) && kept.get(key) !== present) {
      place.insertBefore(kept.get(key), present ?? null);
      present = kept.get(key);
    }
    if (!present) place.append(made);
    else if (!alike(present, made)) place.replaceChild(made, present);
    else if (made.nodeType === Node.TEXT_NODE) {
      if (present.data !== made.data) present.data = made.data;
    } else {
      copyAttributes(present, made);
      update(present, [...made.childNodes]);
    }
  });
  while (place.childNodes.length > wanted.length) place.lastChild.remove();
}

function alike(present, made) {
  return present.nodeName === made.nodeName && present.dataset?.key === made.dataset?.key;
}

function copyAttributes(present, made) {
  for (const { name } of [...present.attributes]) {
    if (!made.hasAttribute(name) && name !== "open") present.removeAttribute(name);
  }
  for (const { name, value } of made.attributes) {
    if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  }
}
