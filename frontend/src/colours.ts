/** The one colour scale: blue lowers, orange raises, zero is the background. The ends come from the style sheet. */

import { signal } from "@preact/signals";

export const LEVELS = 20;
export type Rgb = readonly [number, number, number];

export interface Palette {
  paper: Rgb;
  ink: Rgb;
  quiet: Rgb;
  rule: Rgb;
  lowers: Rgb;
  raises: Rgb;
}

function read(name: string): Rgb {
  const text = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  // Minifiers write #fff for #ffffff.
  const digits = text.length === 4 ? [...text.slice(1)].map((digit) => digit + digit).join("") : text.slice(1);
  const number = Number.parseInt(digits, 16);
  return [(number >> 16) & 255, (number >> 8) & 255, number & 255];
}

function palette(): Palette {
  return {
    paper: read("paper"), ink: read("ink"), quiet: read("quiet"), rule: read("rule"), lowers: read("lowers"), raises: read("raises"),
  };
}

/** The colours of the present mode; canvases redraw when it changes. */
export const colours = signal<Palette>({
  paper: [255, 255, 255], ink: [0, 0, 0], quiet: [90, 90, 90], rule: [220, 220, 220], lowers: [95, 156, 222], raises: [242, 146, 54],
});

export function followTheSystem(): void {
  const update = () => {
    colours.value = palette();
  };
  update();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
}

export function css(rgb: Rgb): string {
  return `rgb(${rgb[0]},${rgb[1]},${rgb[2]})`;
}

/** Steps from -LEVELS (lowers) to LEVELS (raises); 0 where there is no value or no scale. */
export function level(value: number, scale: number): number {
  if (!Number.isFinite(value) || scale <= 0) return 0;
  return Math.round(Math.max(-1, Math.min(1, value / scale)) * LEVELS);
}

/** The class that colours a value, as in exported files. */
export function shade(value: number, scale: number): string {
  const step = level(value, scale);
  return step === 0 ? "" : step > 0 ? `p${step}` : `n${-step}`;
}

/** 511 packed colours for strengths -255..255, for pixels of a canvas. */
export function table(p: Palette): Uint32Array {
  const found = new Uint32Array(511);
  for (let step = -255; step <= 255; step++) {
    const end = step >= 0 ? p.raises : p.lowers;
    const share = Math.abs(step) / 255;
    const mix = (k: 0 | 1 | 2) => Math.round(p.paper[k] + (end[k] - p.paper[k]) * share);
    found[step + 255] = (255 << 24) | (mix(2) << 16) | (mix(1) << 8) | mix(0);
  }
  return found;
}

export function largest(values: ArrayLike<number>): number {
  let found = 0;
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(values[i]!);
    if (size > found && size !== Infinity) found = size;
  }
  return found;
}

export function hasNegative(values: ArrayLike<number>): boolean {
  for (let i = 0; i < values.length; i++) if (values[i]! < 0) return true;
  return false;
}
