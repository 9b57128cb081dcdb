// Numbers as people read them. What is not known is a dash, never a zero.

export const UNKNOWN = "–";

export const known = (value) => value !== null && value !== undefined;

export function number(value, digits = 3) {
  if (!known(value)) return UNKNOWN;
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export function percent(value) {
  if (!known(value)) return UNKNOWN;
  const shown = 100 * value;
  // 99.96 % of a promised 99.9 % must not read as 100 %.
  return `${shown > 90 && shown < 100 ? Math.floor(shown * 100) / 100 : Number(shown.toPrecision(3))} %`;
}

export function milliseconds(value) {
  if (!known(value)) return UNKNOWN;
  return value >= 10000 ? `${number(value / 1000)} s` : `${number(value)} ms`;
}

export function span(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const ago = (seconds) => (known(seconds) ? `${span(seconds)} ago` : UNKNOWN);

export const title = (namespace, name) => (namespace ? `${namespace}/${name}` : name);
