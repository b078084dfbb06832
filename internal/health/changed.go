package health

import "slices"

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
	if targets, ok := v.Rewritten(prev); ok {
		for _, i := range targets {
			if v.Verdicts[i].Status != prev.Verdicts[i].Status {
				changed = append(changed, i)
			}
		}
		return changed
	}
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

// rewritten are the places where one run of verdicts differs from another.
type rewritten struct {
	from, to *Verdict // the first of each
	targets  []int    // ascending
}

// Rewritten returns the positions of all targets whose Verdict differs in any field from
// prev's, ascending; false where that has to be found out by comparing all, because
// v was not judged on prev's verdicts.
func (v *View) Rewritten(prev *View) (targets []int, ok bool) {
	if v == nil || prev == nil || len(v.Verdicts) == 0 || len(prev.Verdicts) != len(v.Verdicts) {
		return nil, false
	}
	now, then := &v.Verdicts[0], &prev.Verdicts[0]
	switch r := v.rewritten; {
	case now == then:
		return nil, true
	case r != nil && r.from == then && r.to == now: // not so in a copy that was changed since
		return r.targets, true
	}
	return nil, false
}

// With returns a copy of v with another verdict on one target, as if Judge had come
// to it: for measurements and what-if.
func (v *View) With(target int, verdict Verdict) *View {
	next := *v
	next.Verdicts = slices.Clone(v.Verdicts)
	next.Verdicts[target] = verdict
	next.rewritten = &rewritten{&v.Verdicts[0], &next.Verdicts[0], []int{target}}
	return &next
}
