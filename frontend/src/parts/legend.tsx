/** The printed colour scale: its two ends, its unit and how to read the sign. */

import { numberFormat, spaced } from "../text";

export function Legend(p: { scale: number; both: boolean; unit: string; sign: string }) {
  if (p.scale === 0) return <p class="quiet">All values are zero{p.unit ? ` (${spaced(p.unit)})` : ""}.</p>;
  const write = numberFormat(p.scale, 4, p.both);
  const words = [p.unit.replaceAll("_", " "), p.sign].filter(Boolean).join(" · ");
  return (
    <div class="legend">
      <span class="bar" role="img" aria-label={`Colour scale: ${p.both ? `blue ${write(-p.scale)}, ` : ""}background 0, orange ${write(p.scale)}`}>
        <span>{p.both ? write(-p.scale) : "0"}</span>
        <i class={p.both ? "both" : "one"} />
        <span>{write(p.scale)}</span>
      </span>
      <span>{words}</span>
    </div>
  );
}
