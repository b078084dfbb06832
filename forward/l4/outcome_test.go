package l4

import (
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// told is what the registry was told of its backends, in order.
type told struct {
	mu  sync.Mutex
	all []bool
}

func (t *told) add(ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, ok)
}

// resetAtEnd answers the end of what the client sends with a reset.
func resetAtEnd(c *net.TCPConn) {
	io.Copy(io.Discard, c)
	c.SetLinger(0)
}

// TestOutcomes: what a connection tells of its backend is that it was accepted or
// refused. How it ends may be the client's doing.
func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		refuse bool
		handle func(*net.TCPConn)
		want   bool
	}{
		{name: "echo", handle: echo, want: true},
		{name: "reset", handle: resetAtEnd, want: true},
		{name: "refused", refuse: true, want: false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := nobody(t)
			if !tt.refuse {
				addr = backend(t, tt.handle)
			}
			f := start(t, Options{}, addr)
			c, err := net.Dial("tcp", f.addr.String())
			if err == nil { // a reset may be faster than we are
				c.(*net.TCPConn).CloseWrite()
				io.ReadAll(c)
				c.Close()
			}
			f.stop()
			if !slices.Equal(f.told.all, []bool{tt.want}) {
				t.Errorf("told %v, want one %v", f.told.all, tt.want)
			}
		})
	}
}
