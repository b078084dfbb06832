package l4

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestAnswerAfterFull: a client that reads nothing until both connections are full then gets all of it, and after that
// an answer of one byte to a question of one byte, several times: the small comes as ever after the large.
func TestAnswerAfterFull(t *testing.T) {
	const rounds = 3
	full := make(chan int, 1)
	behind := backend(t, func(c *net.TCPConn) {
		block, one := make([]byte, 64<<10), make([]byte, 1)
		for range rounds {
			sent := 0
			for { // until there has been no room for a while
				_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				n, err := c.Write(block)
				sent += n
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if err != nil {
					return
				}
			}
			_ = c.SetWriteDeadline(time.Time{})
			full <- sent
			if _, err := io.ReadFull(c, one); err != nil {
				return
			}
			if _, err := c.Write(one); err != nil {
				return
			}
			if _, err := io.ReadFull(c, one); err != nil {
				return
			}
		}
	})
	f := start(t, Options{Shards: 1}, behind)
	c := dial(t, f.addr)
	one := make([]byte, 1)
	for range rounds {
		n := <-full
		if n < 1<<20 {
			t.Fatalf("full after %d bytes", n)
		}
		f.inside(func(_ *shard, flows []*flow) {
			if len(flows) != 1 || !flows[0].server.muted {
				t.Error("what comes while there is no room wakes the shard")
			}
		})
		if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(one); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("no answer after %d bytes: %v", n, err)
		}
		if _, err := c.Write(one); err != nil {
			t.Fatal(err)
		}
	}
}
