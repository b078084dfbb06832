package transport

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// TestEveryMessage: messages of all sizes, written in pieces of all sizes by a
// client that reads late, are answered whole and in order, on several connections at once.
func TestEveryMessage(t *testing.T) {
	_, counters, address := serve(t, Limits{Connections: 64, Idle: time.Minute}, echo{})
	sizes := []int{1, 2, 3, 500, flushSize - 2, flushSize - 1, flushSize, 65534, 65535}
	for seed := range uint64(4) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 7))
			var all []byte
			for range 200 {
				size := sizes[random.IntN(len(sizes))]
				all = binary.BigEndian.AppendUint16(all, uint16(size))
				for range size {
					all = append(all, byte(len(all)))
				}
			}
			conn := connect(t, address)
			go func() {
				for rest := all; len(rest) > 0; {
					n := min(len(rest), 1+random.IntN(1<<random.IntN(18)))
					if _, err := conn.Write(rest[:n]); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					rest = rest[n:]
				}
			}()
			time.Sleep(200 * time.Millisecond) // buffers fill, so that the server cannot send all that it has
			got := make([]byte, len(all))
			if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, all) {
				t.Fatalf("%d octets of %d, %v", n, len(all), err)
			}
		})
	}
	t.Cleanup(func() {
		if n := counters.Slow.Load(); n != 0 {
			t.Errorf("%d were taken for slow readers", n)
		}
	})
}

// TestHalfClosed: a client that says it will ask no more still gets its answers.
func TestHalfClosed(t *testing.T) {
	_, _, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	conn := connect(t, address)
	if _, err := conn.Write([]byte("\x00\x02ok\x00\x01!\x00")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "\x00\x02ok\x00\x01!" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestSilentConnection: one that has sent nothing is not accepted yet, is answered when it asks, and does not
// stay for ever when it does not.
func TestSilentConnection(t *testing.T) {
	_, counters, address := serve(t, Limits{Connections: 8, Idle: 50 * time.Millisecond}, echo{})
	for deadline := time.Now().Add(time.Minute); ; {
		before, begun := counters.Accepted.Load(), time.Now()
		silent := connect(t, address)
		if !works(connect(t, address)) { // it came later and was accepted
			t.Fatal("does not work at all")
		}
		accepted := counters.Accepted.Load() - before
		answered := works(silent)
		if time.Since(begun) < deferAccept*time.Second/2 { // else it may have been accepted as it is, and been idle too long
			if accepted != 1 {
				t.Errorf("%d connections were accepted, want the one that asked", accepted)
			}
			if !answered {
				t.Error("who asks late is not answered")
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("for a minute the machine was too slow to tell")
		}
	}
	if _, err := connect(t, address).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection that never asks: %v, want its end", err)
	}
}

// TestEmptyMessage: a length of zero means that the framing is lost.
func TestEmptyMessage(t *testing.T) {
	_, counters, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	conn := connect(t, address)
	if _, err := conn.Write([]byte("\x00\x02ok\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "\x00\x02ok" || counters.Malformed.Load() != 1 {
		t.Errorf("got %q, %v, counted %d", got, err, counters.Malformed.Load())
	}
}

// TestEndsAreCounted: a client that is silent, and one that does not finish a message, are closed and counted.
func TestEndsAreCounted(t *testing.T) {
	_, counters, address := serve(t, Limits{Connections: 8, Idle: 50 * time.Millisecond}, echo{})
	silent, begun := connect(t, address), connect(t, address)
	if !works(silent) {
		t.Fatal("does not work at all")
	}
	half(t, begun)
	for _, conn := range []net.Conn{silent, begun} {
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want the end", err)
		}
	}
	if counters.Idle.Load() != 1 || counters.Stalled.Load() != 1 {
		t.Errorf("idle %d, stalled %d, want 1 and 1", counters.Idle.Load(), counters.Stalled.Load())
	}
}

// TestMemoryIsBounded: when connections hold enough of messages that are not whole, those that would hold more end, and
// those that hold little do not. What they held is free again when they have ended.
func TestMemoryIsBounded(t *testing.T) {
	pool, counters, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	pool.buffered.Store(mostHeld) // as if others held it
	small, large := connect(t, address), connect(t, address)
	half(t, small)
	message := make([]byte, maxFramed)
	message[0], message[1] = 0xff, 0xff
	if _, err := large.Write(message[:maxFramed-1]); err != nil {
		t.Fatal(err)
	}
	if _, err := large.Read(make([]byte, 1)); err == nil || counters.Memory.Load() != 1 {
		t.Errorf("%v, counted %d: want the end, and 1", err, counters.Memory.Load())
	}
	answered(t, small)
	rests(t, pool, 1, 0)
	if held := pool.buffered.Load(); held != mostHeld {
		t.Errorf("%d octets are still held", held-mostHeld)
	}
	pool.buffered.Store(0)
	large = connect(t, address)
	for _, piece := range [][]byte{message[:maxFramed/2], message[maxFramed/2:]} {
		if _, err := large.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(large, message); err != nil {
		t.Errorf("with room again: %v", err)
	}
	rests(t, pool, 2, 0)
	if held := pool.buffered.Load(); held != 0 {
		t.Errorf("%d octets are held by those that are silent", held)
	}
}

// TestListenerRests: a listener that ran out of descriptors accepts again.
func TestListenerRests(t *testing.T) {
	pool, _, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	if !works(connect(t, address)) {
		t.Fatal("does not work at all")
	}
	for _, s := range pool.streams {
		rested := make(chan int)
		s.do(func() {
			for _, l := range s.listeners {
				s.rest(l)
			}
			rested <- len(s.resting)
		})
		if n := <-rested; n == 0 {
			t.Error("no listener rests")
		}
	}
	if !works(connect(t, address)) {
		t.Error("accepts no more")
	}
}

// TestIdleLimitShortened: a lower limit holds for connections that wait already.
func TestIdleLimitShortened(t *testing.T) {
	pool, _, address := serve(t, Limits{Connections: 8, Idle: time.Hour}, echo{})
	conn := connect(t, address)
	if !works(conn) {
		t.Fatal("does not work at all")
	}
	pool.SetLimits(Limits{Connections: 8, Idle: time.Millisecond})
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the silent connection: %v, want its end", err)
	}
}

// TestTCPAllocations: another message on a connection allocates nothing.
func TestTCPAllocations(t *testing.T) {
	_, _, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	conn := connect(t, address)
	message, reply := []byte("\x00\x02ok"), make([]byte, 4)
	ask := func() {
		if _, err := conn.Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, reply); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if n := testing.AllocsPerRun(200, ask); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
}
