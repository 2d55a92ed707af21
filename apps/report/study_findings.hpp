// The paper's claims put to the test by a study.
#pragma once
#include <string>
#include <vector>

#include "apps/report/mean_difference.hpp"
#include "apps/report/study_data.hpp"

namespace nibble::apps {

/// One of the paper's findings, and what this study says about it.
struct Finding {
  std::string claim;
  Verdict verdict = Verdict::kNotTested;
  std::string evidence;
};

/// The five findings. A difference is the mean over the pairs that can be compared, its error that of independent
/// samples (all models see the same images, so the true one is mostly smaller; where no model has several seeds, that
/// of the images alone, which the evidence says); it holds when the mean is above decisive_errors() of them
/// (statistics.hpp: two, or more where few seeds tell the errors), is contradicted below minus as many, and undecided
/// between. "Equal cost" are 4-bit models of 80 to 100 % of the other model's linear cost; where a study has no such
/// pair, cheaper ones can confirm the claim but not contradict it. "Equal width" are the widths from 0.75 on, as
/// published (below, the paper has bf16 ahead); its evidence covers all widths and precisions.
std::vector<Finding> findings_of(const std::vector<StudyGroup>& groups);

}  // namespace nibble::apps
