// The list of services: the most urgent first.

import { element } from "./elements.js";
import { number, percent, title } from "./words.js";

export const address = (service) => `#/${encodeURIComponent(service.namespace)}/${encodeURIComponent(service.name)}`;

export function list(told, chosen) {
  if (!told.services.length) return [element("li", { class: "quiet" }, "No service is known here.")];
  const items = told.services.map((service) => {
    const current = chosen && service.namespace === chosen.namespace && service.name === chosen.name;
    return element(
      "li",
      { "data-key": title(service.namespace, service.name) },
      element(
        "a",
        { href: address(service), "aria-current": current ? "page" : null },
        element("span", { class: `badge ${service.verdict}` }, service.verdict),
        ` ${title(service.namespace, service.name)}`,
        element(
          "small",
          {},
          `TTFT ${percent(service.ttft_attainment)}, TBT ${percent(service.tbt_attainment)}, pressure ${number(service.pressure)}`,
        ),
      ),
    );
  });
  if (told.services_left_out) items.push(element("li", { class: "quiet" }, `and ${told.services_left_out} more`));
  return items;
}
