/** Named series over one x-axis, drawn as in exported files; `<name>_low` and `<name>_high` are a band. */

import { useState } from "preact/hooks";
import { exact, fourDigits, label, numberFormat, spaced } from "../text";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [460, 230, 54, 12, 12, 40];

export interface Series {
  name: string;
  values: number[];
  band: [number[], number[]] | null;
}

export function seriesOf(curves: Record<string, number[]>): { x: number[]; lines: Series[] } {
  const longest = Math.max(0, ...Object.entries(curves).map(([name, v]) => (name === "x" ? 0 : v.length)));
  const x = curves.x?.length ? curves.x : Array.from({ length: longest }, (_, i) => i);
  const bases = Object.keys(curves).filter((name) => name.endsWith("_low") && `${name.slice(0, -4)}_high` in curves).map((name) => name.slice(0, -4));
  const bands = new Set(bases.flatMap((name) => [`${name}_low`, `${name}_high`]));
  const order = [...new Set([...Object.keys(curves).filter((name) => name !== "x" && !bands.has(name)), ...bases])];
  const lines = order.map((name) => ({
    name, values: curves[name] ?? [], band: bases.includes(name) ? ([curves[`${name}_low`]!, curves[`${name}_high`]!] as [number[], number[]]) : null,
  }));
  return { x, lines };
}

function span(values: number[], margin: number): [number, number] {
  const finite = values.filter(Number.isFinite);
  const low = finite.length ? Math.min(...finite) : 0;
  const high = finite.length ? Math.max(...finite) : 0;
  if (high - low <= 1e-12 * Math.max(Math.abs(low), Math.abs(high), 1e-300)) {
    const half = Math.abs(low) / 2 || 0.5;
    return [low - half, high + half];
  }
  return [low - margin * (high - low), high + margin * (high - low)];
}

export function ticks([low, high]: [number, number], count = 4): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999) ?? rough;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k <= Math.floor(high / step + 1e-9); k++) found.push(k * step);
  return found;
}

function path(points: [number, number][]): string {
  let pen = "M";
  return points.map(([x, y]) => {
    if (!Number.isFinite(x + y)) return (pen = "M"), "";
    const piece = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
    return piece;
  }).join("");
}

export function Curve(p: { name: string; x: number[]; lines: Series[]; xName?: string }) {
  const [at, setAt] = useState<number | null>(null);
  if (p.lines.length === 0) return null;
  const across = span(p.x, 0);
  const up = span(p.lines.flatMap((line) => [...line.values, ...(line.band?.flat() ?? [])]), 0.04);
  const px = (value: number) => LEFT + ((value - across[0]) / (across[1] - across[0])) * (WIDTH - LEFT - RIGHT);
  const py = (value: number) => HEIGHT - BOTTOM - ((value - up[0]) / (up[1] - up[0])) * (HEIGHT - TOP - BOTTOM);
  const points = (values: number[]) => values.map((value, i): [number, number] => [px(p.x[i]!), py(value)]);
  const format = (marks: number[]) => {
    const step = (marks[1] ?? 1) - (marks[0] ?? 0);
    const digits = Math.max(0, -Math.floor(Math.log10(Math.abs(step) || 1) + 1e-9)) + (Math.abs(step * 4) % 1 === 0 && step % 1 !== 0 && step < 1 && step > 0.2 ? 1 : 0);
    return (value: number) => (Math.abs(value) >= 1e5 ? value.toExponential(1) : value.toFixed(Math.min(digits, 6))).replace("-", "−");
  };
  const [marksX, marksY] = [ticks(across), ticks(up)];
  const [writeX, writeY] = [format(marksX), format(marksY)];
  const spoken = p.lines.map((line) => `${spaced(line.name)} from ${fourDigits(line.values[0] ?? Number.NaN)} to ${fourDigits(line.values.at(-1) ?? Number.NaN)}`);
  const seek = (event: PointerEvent) => {
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    const value = across[0] + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * (across[1] - across[0]);
    let best = 0;
    p.x.forEach((x, i) => Math.abs(x - value) < Math.abs(p.x[best]! - value) && (best = i));
    setAt(best);
  };
  const key = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setAt(Math.max(0, Math.min(p.x.length - 1, (at ?? -1) + step)));
  };
  return (
    <figure class="curve">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" tabindex={0} aria-label={`${p.name}: over ${fourDigits(p.x[0]!)} to ${fourDigits(p.x.at(-1)!)}, ${spoken.join(", ")}`}
        onPointerMove={seek} onPointerLeave={() => setAt(null)} onKeyDown={key} onBlur={() => setAt(null)}>
        {marksY.map((t) => (
          <g key={t}>
            <path class="rule" d={`M${LEFT} ${py(t).toFixed(1)}H${WIDTH - RIGHT}`} />
            <text class="end" x={LEFT - 7} y={py(t) + 4}>{writeY(t)}</text>
          </g>
        ))}
        {marksX.map((t) => <text key={t} class="mid" x={px(t)} y={HEIGHT - BOTTOM + 17}>{writeX(t)}</text>)}
        {p.xName && <text class="mid" x={(LEFT + WIDTH - RIGHT) / 2} y={HEIGHT - 4}>{spaced(p.xName)}</text>}
        {p.lines.map((line, i) => {
          if (!line.band) return null;
          const forth = path(points(line.band[0]));
          const back = path(points(line.band[1]).reverse());
          return <path key={line.name} class={`band c${i % 4}`} d={`${forth}L${back.slice(1)}Z`} />;
        })}
        {p.lines.map((line, i) => <path key={line.name} class={`line c${i % 4}`} d={path(points(line.values))} />)}
        {at !== null && <path class="now" d={`M${px(p.x[at]!).toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}`} />}
      </svg>
      <figcaption>
        {p.lines.map((line, i) => (
          <span key={line.name}>
            <svg viewBox="0 0 28 10" width="28" height="10" aria-hidden="true"><path class={`line c${i % 4}`} d="M1 5H27" /></svg>{" "}
            {label(spaced(line.name))}{line.band ? " and its band" : ""}
            {at !== null && <b> {numberFormat(1, 4, false)(line.values[at] ?? Number.NaN)}</b>}
          </span>
        ))}
        {at !== null && <span>at {exact(p.x[at]!).replace("+", "")}</span>}
      </figcaption>
    </figure>
  );
}
