// Package forward is what the two forwarding engines share: which backends
// take new connections now, what each backend is carrying, how a connection to
// one is opened or borrowed, and how listening sockets are opened, kept over a
// reload and drained.
//
// A Registry answers "which backends has this service now?" from the newest
// plan, and keeps what must outlive plans and reloads, by backend identity
// (service and address): connections and requests in flight, failures, idle
// upstream connections, and since when a backend that came back grows into its
// weight. A Front owns listening sockets and the connections accepted on them;
// package l4 and package l7 give it a function that speaks their protocol.
//
// It never decides whether a backend is healthy: plans say that. It tells what
// became of the work (Options.Outcome) to whoever wants to judge by it, and only
// avoids for a moment a backend that has just refused a connection. It never
// parses what it carries.
//
// Callers: forward/l4, forward/l7, and the node, which makes the one Registry:
//
//	registry, err := forward.New(forward.Options{Pools: forward.FromBoard(&board)})
//	tcp, err := l4.New(l4.Options{Registry: registry, Listeners: …})
//	web, err := l7.New(l7.Options{Registry: registry, Listeners: …})
//
// A unit of work (an L4 connection, an L7 request) loads the Edition once and
// keeps it to its end:
//
//	lease, err := registry.Load().Borrow(ctx, "web", forward.Terms{Connect: 2 * time.Second})
//	if err != nil { … }
//	defer lease.Release(false)
package forward
