/** One axis that is a path: a curve over it, with its band where there is one. */

import { Curve } from "../parts/curve";
import { names, type Scores } from "../result";
import type { ViewProps } from "./index";
import { ScoreTable } from "./token_scores";

export function CurveView({ result }: ViewProps<Scores>) {
  const axis = result.axes[0]!;
  const values = Array.from(result.values.data ?? []);
  const given = names(result, axis).map(Number);
  const x = given.every(Number.isFinite) ? given : values.map((_, i) => i);
  const error = result.std_error?.data;
  const band: [number[], number[]] | null = error ? [values.map((v, i) => v - error[i]!), values.map((v, i) => v + error[i]!)] : null;
  return (
    <>
      <Curve name={result.title || axis} x={x} lines={[{ name: result.unit || "value", values, band }]} xName={axis} />
      <ScoreTable result={result} open={false} />
    </>
  );
}
