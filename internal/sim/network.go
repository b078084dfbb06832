package sim

import "time"

// A network carries messages between machines, badly.
type network struct {
	// cut is by sender and receiver.
	cut [][]bool
	// loss and duplicate are shares of the datagrams; slow is the longest delay.
	loss, duplicate float64
	slow            time.Duration
}

// fast is the longest delay in good weather.
const fast = 40 * time.Millisecond

func newNetwork(machines int) network {
	n := network{slow: fast, cut: make([][]bool, machines)}
	for i := range n.cut {
		n.cut[i] = make([]bool, machines)
	}
	return n
}

// open reports whether what from sends can reach to.
func (n *network) open(from, to int) bool { return !n.cut[from][to] }

// both reports whether two machines can talk.
func (n *network) both(a, b int) bool { return n.open(a, b) && n.open(b, a) }

// datagram has deliver happen at to, unless it is lost on the way; perhaps twice.
func (w *world) datagram(from, to *machine, deliver func()) {
	copies := 1
	if w.chance(w.net.duplicate) {
		copies = 2
	}
	for range copies {
		if !w.net.open(from.id, to.id) || w.chance(w.net.loss) {
			continue
		}
		life := to.life
		w.in(w.between(time.Millisecond, w.net.slow), func() {
			if to.alive && to.life == life { // who is dead or was restarted has another socket
				to.receive(deliver)
			}
		})
	}
}

// stream has deliver happen at to, if the two can talk: what TCP would do.
func (w *world) stream(from, to *machine, deliver func()) {
	if !w.net.both(from.id, to.id) || !to.alive || to.frozen {
		return
	}
	life := to.life
	w.in(w.between(time.Millisecond, 2*w.net.slow), func() {
		if to.alive && to.life == life {
			to.receive(deliver)
		}
	})
}
