package health

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
