/* Who searches wants to do something: pages that say how come before the rest, then tutorials. */
var Scorer = {
  score: (result) => {
    const [page, , , , score] = result;
    if (page.startsWith("how_to/")) return score + 12;
    if (page.startsWith("tutorials/") || page === "faq") return score + 6;
    if (page.startsWith("who_wins_where") || page.startsWith("benchmarks")) return score - 6;
    return score;
  },
  // as Sphinx has them
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
