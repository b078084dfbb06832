// Package porttest finds ports for tests whose servers have to be told theirs, and cannot take any and say which.
// Tests of the forwarding tiers and of the whole program call it; nothing else does.
package porttest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Free returns a port of 127.0.0.1 that was free for TCP and UDP a moment ago. It is below those that the kernel gives
// to who asks for any, so that nobody else is likely to get it meanwhile.
func Free(t testing.TB) int {
	t.Helper()
	for range 200 {
		port := 10000 + rand.IntN(20000)
		at := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", at)
		if err != nil {
			continue
		}
		p, err := net.ListenPacket("udp", at)
		l.Close()
		if err == nil {
			p.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
