package bfd

import "container/heap"

// An agenda orders the sessions by when they are due.
type agenda struct{ entries entries }

func (a *agenda) add(e *entry)    { heap.Push(&a.entries, e) }
func (a *agenda) remove(e *entry) { heap.Remove(&a.entries, e.place) }
func (a *agenda) moved(e *entry)  { heap.Fix(&a.entries, e.place) }

// first returns the session that is due first; nil = there is none.
func (a *agenda) first() *entry {
	if len(a.entries) == 0 {
		return nil
	}
	return a.entries[0]
}

// entries is a heap.Interface.
type entries []*entry

func (h entries) Len() int           { return len(h) }
func (h entries) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *entries) Push(x any) {
	e := x.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

func (h *entries) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
