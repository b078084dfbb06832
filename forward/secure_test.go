package forward

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/certtest"
)

// Content types of TLS.
const (
	tlsHandshake = 22
	tlsData      = 23
)

var (
	updateAsked = []byte{24, 0, 0, 1, 1} // KeyUpdate, update_requested
	updateGiven = []byte{24, 0, 0, 1, 0}
)

// keyed is one direction of a TLS 1.3 connection by RFC 8446, section 7: crypto/tls cannot be made to ask for a KeyUpdate.
type keyed struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newKeyed(secret []byte) (*keyed, error) {
	k := &keyed{secret: secret}
	key, err := k.expand("key", 16)
	if err != nil {
		return nil, err
	}
	if k.iv, err = k.expand("iv", 12); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}

func (k *keyed) expand(label string, n int) ([]byte, error) {
	label = "tls13 " + label
	return hkdf.Expand(sha256.New, k.secret, string([]byte{0, byte(n), byte(len(label))})+label+"\x00", n)
}

// updated returns what comes after a KeyUpdate.
func (k *keyed) updated() (*keyed, error) {
	secret, err := k.expand("traffic upd", sha256.Size)
	if err != nil {
		return nil, err
	}
	return newKeyed(secret)
}

func (k *keyed) nonce() []byte {
	out := bytes.Clone(k.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, k.seq) {
		out[4+i] ^= b
	}
	k.seq++
	return out
}

// asker is a TLS client that asks for KeyUpdates.
type asker struct {
	net.Conn
	in, out *keyed
}

// ask returns our end of a TLS connection over a pair of connections, and the client's.
func ask(t *testing.T, ours, theirs net.Conn) (*Stream, *asker) {
	t.Helper()
	ca := certtest.New(t)
	pair := ca.Pair(certtest.Leaf{Names: []string{"a.test"}})
	s, conn := Secure(NewStream(ours), func(below net.Conn) *tls.Conn {
		return tls.Server(below, &tls.Config{Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true})
	})
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	var log bytes.Buffer
	client := tls.Client(theirs, &tls.Config{
		ServerName: "a.test", RootCAs: ca.Pool(), MinVersion: tls.VersionTLS13, KeyLogWriter: &log,
	})
	shaken := make(chan error, 1)
	go func() { shaken <- conn.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	if got := client.ConnectionState().CipherSuite; got != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("the suite is %s", tls.CipherSuiteName(got))
	}
	a := &asker{Conn: theirs}
	for line := range strings.Lines(log.String()) {
		f := strings.Fields(line)
		at := map[string]**keyed{"SERVER_TRAFFIC_SECRET_0": &a.in, "CLIENT_TRAFFIC_SECRET_0": &a.out}[f[0]]
		if at == nil {
			continue
		}
		secret, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		if *at, err = newKeyed(secret); err != nil {
			t.Fatal(err)
		}
	}
	return s, a
}

// send writes one record.
func (a *asker) send(kind byte, p []byte) error {
	inner := append(bytes.Clone(p), kind)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+a.out.aead.Overhead()))
	_, err := a.Write(a.out.aead.Seal(head, a.out.nonce(), inner, head))
	return err
}

// update asks for a KeyUpdate, and goes on with its next key.
func (a *asker) update() (err error) {
	if err = a.send(tlsHandshake, updateAsked); err == nil {
		a.out, err = a.out.updated()
	}
	return err
}

// next reads one record.
func (a *asker) next() (kind byte, p []byte, err error) {
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(a, head); err != nil {
		return 0, nil, err
	}
	sealed := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(a, sealed); err != nil {
		return 0, nil, err
	}
	p, err = a.in.aead.Open(nil, a.in.nonce(), sealed, head)
	if err != nil {
		return 0, nil, err
	}
	kind = p[len(p)-1]
	return kind, p[:len(p)-1], nil
}

// take reads n bytes of data, whose keys may change, and returns how often they did.
func (a *asker) take(n int) (data []byte, updates int, err error) {
	for len(data) < n {
		kind, p, err := a.next()
		switch {
		case err != nil:
			return data, updates, err
		case kind == tlsData:
			data = append(data, p...)
		case kind == tlsHandshake && bytes.Equal(p, updateGiven):
			updates++
			if a.in, err = a.in.updated(); err != nil {
				return data, updates, err
			}
		default:
			return data, updates, fmt.Errorf("a record of kind %d: %x", kind, p)
		}
	}
	return data, updates, nil
}

// TestKeyUpdateAfterDeadline: a KeyUpdate is answered however long ago we have written, and leaves our own deadline as it is.
func TestKeyUpdateAfterDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s, a := ask(t, ours, theirs)
		say := func(text string, within time.Duration) {
			t.Helper()
			done := make(chan error, 1)
			go func() {
				s.WriteWithin(within)
				_, err := s.Write([]byte(text))
				done <- err
			}()
			got, _, err := a.take(len(text))
			if string(got) != text || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		hear := func(updates int) {
			t.Helper()
			answers := make(chan error, 1)
			go func() {
				for range updates {
					if err := a.update(); err != nil {
						answers <- err
						return
					}
					if kind, p, err := a.next(); err != nil || kind != tlsHandshake || !bytes.Equal(p, updateGiven) {
						answers <- fmt.Errorf("got kind %d, %x, %w", kind, p, err)
						return
					}
					a.in, _ = a.in.updated()
				}
				answers <- a.send(tlsData, []byte("?"))
			}()
			b, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			b.Free()
			if err := <-answers; err != nil {
				t.Fatal(err)
			}
		}
		hear(1) // before anything was said of writes
		say("one", time.Second)
		time.Sleep(3 * time.Second)
		hear(3)
		say("two", time.Second)
		time.Sleep(3 * time.Second)
		hear(1)

		// The answer takes nothing from the time of a write, and adds nothing to it.
		const within = 800 * time.Millisecond
		s.WriteWithin(within)
		began := time.Now()
		time.Sleep(within / 2)
		hear(1)
		if _, err := s.Write([]byte("nobody reads")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("writing ends with %v", err)
		}
		if took := time.Since(began); took != within {
			t.Errorf("it ended after %s, want %s", took, within)
		}
	})
}

// TestKeyUpdateUnread: a client that asks for KeyUpdates and does not read is waited for as long as a write may last.
func TestKeyUpdateUnread(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(t *testing.T, s *Stream, a *asker)
		during func(s *Stream)
		want   time.Duration
		err    error
	}{
		"nothing written": {want: answerTime, err: errDeaf},
		"written": {
			before: func(t *testing.T, s *Stream, a *asker) {
				go func() { s.WriteWithin(2 * time.Second); s.Write([]byte("x")) }()
				if _, _, err := a.take(1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
			},
			want: 2 * time.Second, err: errDeaf,
		},
		"interrupted": {during: func(s *Stream) { time.Sleep(time.Second); s.Interrupt() }, want: time.Second, err: os.ErrDeadlineExceeded},
		"aborted":     {during: func(s *Stream) { time.Sleep(time.Second); s.Abort() }, want: time.Second, err: io.ErrClosedPipe},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				s, a := ask(t, ours, theirs)
				if tt.before != nil {
					tt.before(t, s, a)
				}
				go func() {
					for a.update() == nil && a.send(tlsData, []byte("?")) == nil { // it never reads
					}
				}()
				if tt.during != nil {
					go tt.during(s)
				}
				began := time.Now()
				var err error
				for err == nil {
					var b *Buffer
					b, err = s.Receive()
					b.Free()
				}
				if took := time.Since(began); took != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("reading ends after %s with %v, want %s, %v", took, err, tt.want, tt.err)
				}
				if _, err := s.Write([]byte("y")); err == nil {
					t.Error("writing goes on")
				}
			})
		})
	}
}

// TestKeyUpdateWhileWriting: answers find their place between the records of long writes.
func TestKeyUpdateWhileWriting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s, a := ask(t, ours, theirs)
	const updates, writes = 300, 100
	text := bytes.Repeat([]byte("0123456789abcdef"), 5<<10) // several records
	ended := make(chan error, 3)
	go func() { // the client's writer
		for range updates {
			if err := errors.Join(a.update(), a.send(tlsData, []byte("?"))); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	go func() { // our reader
		for n := 0; n < updates; {
			b, err := s.Receive()
			if err != nil {
				ended <- err
				return
			}
			n += len(b.Unread())
			b.Free()
		}
		ended <- nil
	}()
	go func() { // our writer
		for i := range writes {
			s.WriteWithin(time.Minute)
			if _, err := s.Write(text[:len(text)>>(i%5*2)]); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	total := 0
	for i := range writes {
		total += len(text) >> (i % 5 * 2)
	}
	_, seen, err := a.take(total)
	if err != nil {
		t.Fatalf("after %d updates: %v", seen, err)
	}
	for ; seen < updates; seen++ {
		kind, p, err := a.next()
		if err != nil || kind != tlsHandshake || !bytes.Equal(p, updateGiven) {
			t.Fatalf("after %d updates: kind %d, %x, %v", seen, kind, p, err)
		}
		if a.in, err = a.in.updated(); err != nil {
			t.Fatal(err)
		}
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
