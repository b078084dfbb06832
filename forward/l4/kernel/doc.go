// Package kernel is what forward/l4 and forward/l4/udp ask of the kernel in the same way:
// a goroutine's epoll instance that others may interrupt, socket addresses, and words
// for what went wrong.
//
//	l, err := kernel.NewLoop()
//	…
//	for !done {
//		events := l.Wait(patience)
//		for i := range events {
//			if token := kernel.Token(&events[i]); token == kernel.Wake {
//				l.Obey()
//			} else { … }
//		}
//	}
//
// It knows nothing of what is watched, and when to end.
package kernel
