package l4

// timers is a heap of flows by the time at which somebody has to look at them.
// Activity does not touch it: a flow that has moved bytes meanwhile is put back
// when its time comes.
type timers []*flow

func (t timers) less(i, j int) bool { return t[i].when < t[j].when }

func (t timers) swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = int32(i), int32(j)
}

func (t *timers) push(f *flow, when int64) {
	f.when, f.index = when, int32(len(*t))
	*t = append(*t, f)
	t.rise(len(*t) - 1)
}

// set moves f, which is in the heap, to another time.
func (t timers) set(f *flow, when int64) {
	f.when = when
	i := int(f.index)
	t.rise(i)
	if int(f.index) == i {
		t.sink(i)
	}
}

func (t *timers) remove(f *flow) {
	old := *t
	i, last := int(f.index), len(old)-1
	if i != last {
		old.swap(i, last)
	}
	old[last] = nil
	*t = old[:last]
	f.index = -1
	if i != last {
		t.set(old[i], old[i].when)
	}
}

func (t timers) rise(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !t.less(i, parent) {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t timers) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(t) {
			return
		}
		if child+1 < len(t) && t.less(child+1, child) {
			child++
		}
		if !t.less(child, i) {
			return
		}
		t.swap(i, child)
		i = child
	}
}
