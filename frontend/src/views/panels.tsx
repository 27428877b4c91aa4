/** Three axes or more: a thumbnail for each place of the leading ones, and one of them large. Slices come one by one. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { colours, largest, table } from "../colours";
import { names, type Scores, slice } from "../result";
import { setView, state } from "../state";
import { spaced } from "../text";
import { Grid, useSlice } from "./grid";
import type { ViewProps } from "./index";

const SIDE = 72;
const PIECE = 144;

function places(shape: number[]): number[][] {
  return shape.reduce<number[][]>((found, size) => found.flatMap((place) => Array.from({ length: size }, (_, i) => [...place, i])), [[]]);
}

function Thumbnail(p: { result: Scores; place: number[]; name: string; chosen: boolean; onPick: () => void; scale: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [values, setValues] = useState<ArrayLike<number> | null>(null);
  const palette = colours.value;
  const [rows, columns] = [p.result.values.shape.at(-2)!, p.result.values.shape.at(-1)!];
  useEffect(() => {
    const stop = new AbortController();
    const seen = new IntersectionObserver(([entry]) => {
      if (!entry!.isIntersecting) return;
      seen.disconnect();
      slice(p.result, p.place, true, stop.signal).then(setValues).catch(() => undefined);
    }, { rootMargin: "400px" });
    seen.observe(canvas.current!);
    return () => {
      stop.abort();
      seen.disconnect();
    };
  }, [p.result, p.place.join()]);
  useEffect(() => {
    if (values === null) return;
    const element = canvas.current!;
    const [width, height] = [Math.min(columns, 2 * SIDE), Math.min(rows, 2 * SIDE)];
    element.width = width;
    element.height = height;
    const context = element.getContext("2d")!;
    const image = context.createImageData(width, height);
    const out = new Uint32Array(image.data.buffer);
    const lookup = table(palette);
    const end = p.scale > 0 ? p.scale : largest(values) || 1;
    // Where several cells share a pixel, the strongest of them is shown.
    const strongest = new Float64Array(width * height);
    for (let row = 0; row < rows; row++) {
      const y = Math.floor((row * height) / rows) * width;
      for (let column = 0; column < columns; column++) {
        const i = y + Math.floor((column * width) / columns);
        const value = values[row * columns + column]!;
        if (Math.abs(value) > Math.abs(strongest[i]!)) strongest[i] = value;
      }
    }
    strongest.forEach((value, i) => {
      out[i] = lookup[255 + Math.round(Math.max(-1, Math.min(1, value / end)) * 255)]!;
    });
    context.putImageData(image, 0, 0);
  }, [values, palette, p.scale]);
  return (
    <button type="button" class="thumbnail" aria-pressed={p.chosen} onClick={p.onPick} title={p.name}>
      <canvas ref={canvas} style={{ aspectRatio: `${Math.max(0.4, Math.min(4, columns / rows))}` }} aria-hidden="true" />
      <span>{p.name}</span>
    </button>
  );
}

export function PanelsView(p: ViewProps<Scores>) {
  const { result } = p;
  const leading = result.axes.slice(0, -2);
  const all = useMemo(() => places(result.values.shape.slice(0, -2)), [result]);
  const labels = useMemo(() => leading.map((axis, i) => names(result, axis, i)), [result]);
  const scale = useMemo(() => (result.values.data ? largest(result.values.data) : (result.values.peak ?? 0)), [result]);
  const [shown, setShown] = useState(PIECE);
  const key = `panel.${result.provenance.method}`;
  const asked = (state.value.view[key] ?? "").split(",").map(Number);
  const place = all.find((one) => one.length === asked.length && one.every((value, i) => value === asked[i])) ?? strongestPlace(result, all);
  const name = (at: number[]) => at.map((index, i) => {
    const text = labels[i]![index]!;
    return /^[\d.]+$/.test(text) ? `${spaced(leading[i]!)} ${text}` : text;
  }).join(", ");
  const { values, error } = useSlice(result, place);
  const axes: [string, string] = [result.axes.at(-2)!, result.axes.at(-1)!];
  return (
    <div class="panels">
      <div class="thumbnails" role="group" aria-label={`Choose ${leading.map(spaced).join(" and ")}`}>
        {all.slice(0, shown).map((one) => (
          <Thumbnail key={one.join()} result={result} place={one} name={name(one)} chosen={one === place} scale={scale} onPick={() => setView(key, one.join())} />
        ))}
        {shown < all.length && <button type="button" class="quiet-button" onClick={() => setShown(shown + PIECE)}>{all.length - shown} more</button>}
      </div>
      <div class="large">
        <h4>{name(place)}</h4>
        {error ? <p class="refused" role="alert">{error}</p> : values === null ? <p class="quiet" role="status">Fetching the numbers…</p>
          : <Grid {...p} values={values} axes={axes} leading={place} name={name(place)} />}
      </div>
    </div>
  );
}

function strongestPlace(result: Scores, all: number[][]): number[] {
  const { data, shape } = result.values;
  if (data === null) return all[0]!;
  const size = shape.at(-1)! * shape.at(-2)!;
  let [best, most] = [0, -1];
  for (let i = 0; i < all.length; i++) {
    const peak = largest(data.subarray(i * size, (i + 1) * size));
    if (peak > most) [best, most] = [i, peak];
  }
  return all[best]!;
}
