/** One axis that is neither text nor a path: its numbers in a table. */

import { hasNegative, largest } from "../colours";
import { Legend } from "../parts/legend";
import type { Scores } from "../result";
import type { ViewProps } from "./index";
import { ScoreTable } from "./token_scores";

export function ListView({ result }: ViewProps<Scores>) {
  const { data } = result.values;
  if (data === null) return <p class="quiet">This result is too long for the page; download it as CSV.</p>;
  return (
    <>
      <Legend scale={largest(data)} both={hasNegative(data)} unit={result.unit} sign={result.sign} />
      <ScoreTable result={result} open />
    </>
  );
}
