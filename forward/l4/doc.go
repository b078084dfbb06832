// Package l4 forwards TCP connections to the pool of a service, blind to what
// they carry.
//
// One goroutine per direction copies: through pooled buffers at first, held
// only while bytes move, and inside the kernel (splice) once a flow proves to
// be bulky. The end of one direction is passed on and the other goes on. A
// connection ends when both directions have ended, when one breaks (the other
// side then sees a reset), or when both have been silent for the listener's
// Idle.
//
// The backend is picked from the newest plan when the connection arrives; one
// that cannot be connected to is replaced by another. With no backend to give,
// the client is reset at once. Connections are never moved or cut because a
// plan or a configuration changed.
//
// It never resolves names, never judges health and never looks into the bytes.
// The node builds it, runs it and reloads it:
//
//	s, err := l4.New(l4.Options{
//		Registry: registry,
//		Listeners: []l4.Listener{{Address: netip.MustParseAddrPort("198.51.100.80:5432"), Service: "db"}},
//	})
//	go s.Run(ctx)
//	change, err := s.Prepare(newListeners) // binds what is new
//	change.Commit()                        // or Discard
package l4
