package health

import "slices"

// Forced returns a copy of v in which the verdicts are as assume says ("what if
// fra were down?"), marked WhyForced; where assume returns false the verdict
// stays. The copy is for explaining only and must never be the previous view of
// Judge. v is not changed; nil stays nil.
func Forced(v *View, assume func(Target) (Status, bool)) *View {
	if v == nil || v.Layout == nil {
		return v
	}
	forced := *v
	forced.Verdicts = slices.Clone(v.Verdicts)
	for i := range forced.Verdicts {
		status, ok := assume(v.Layout.Targets[i])
		if !ok {
			continue
		}
		verdict := Verdict{Status: status, Since: forced.Verdicts[i].Since, Why: WhyForced}
		if status != forced.Verdicts[i].Status {
			verdict.Since = v.At
		}
		forced.Verdicts[i] = verdict
	}
	return &forced
}

// Changed returns the positions in v's layout of the targets whose Status
// differs from prev's, ascending. Targets that prev does not know had
// StatusNone.
func (v *View) Changed(prev *View) []int {
	if v == nil || len(v.Verdicts) == 0 {
		return nil
	}
	aligned := prev != nil && prev.Layout != nil && v.Layout != nil &&
		sameLayout(v.Layout, prev.Layout) && len(prev.Verdicts) == len(v.Verdicts)
	if aligned && &v.Verdicts[0] == &prev.Verdicts[0] {
		return nil // Judge shares the verdicts when nothing changed
	}
	var changed []int
	for i := range v.Verdicts {
		var was Status
		if aligned {
			was = prev.Verdicts[i].Status
		} else {
			was = prev.Of(v.Layout.Targets[i]).Status
		}
		if v.Verdicts[i].Status != was {
			changed = append(changed, i)
		}
	}
	return changed
}
