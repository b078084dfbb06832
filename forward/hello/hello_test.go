package hello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// client returns what a crypto/tls client sends first.
func client(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	config.InsecureSkipVerify = true
	go func() {
		_ = tls.Client(a, config).Handshake()
		a.Close()
	}()
	header := make([]byte, 5)
	if _, err := io.ReadFull(b, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	return append(header, body...)
}

// spread puts the message of one record into records of at most size bytes.
func spread(record []byte, size int) []byte {
	var out []byte
	for part := range slices.Chunk(record[5:], size) {
		out = append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

func TestParse(t *testing.T) {
	tests := []struct {
		name   string
		config *tls.Config
		want   Hello
	}{
		{"name", &tls.Config{ServerName: "www.example.com"}, Hello{ServerName: "www.example.com"}},
		{"upper case", &tls.Config{ServerName: "WWW.Example.COM"}, Hello{ServerName: "www.example.com"}},
		{"an address is no name", &tls.Config{ServerName: "192.0.2.1"}, Hello{}},
		{"protocols", &tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}}, Hello{"a.example", []string{"h2", "http/1.1"}}},
		{"TLS 1.2", &tls.Config{ServerName: "a.example", MaxVersion: tls.VersionTLS12}, Hello{ServerName: "a.example"}},
		{
			"many protocols", &tls.Config{ServerName: "a.example", NextProtos: strings.Split(strings.Repeat("spdy/3.1,", 99)+"h2", ",")},
			Hello{"a.example", strings.Split(strings.Repeat("spdy/3.1,", 99)+"h2", ",")},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole := client(t, tt.config)
			for _, b := range [][]byte{whole, spread(whole, 1), spread(whole, 3), spread(whole, 100)} {
				h, err := Parse(append(bytes.Clone(b), "more"...))
				if err != nil || h.ServerName != tt.want.ServerName || !slices.Equal(h.Protocols, tt.want.Protocols) {
					t.Fatalf("got %+v, %v, want %+v", h, err, tt.want)
				}
				for cut := 0; cut < len(b); cut += 1 + len(b)/200 {
					if _, err := Parse(b[:cut]); !errors.Is(err, ErrIncomplete) {
						t.Fatalf("the first %d bytes: %v", cut, err)
					}
				}
			}
		})
	}
}

// message is a hello with these extensions.
func message(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 1, 1, 0)
	all := bytes.Join(extensions, nil)
	body = binary.BigEndian.AppendUint16(body, uint16(len(all)))
	body = append(body, all...)
	m := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(m) >> 8), byte(len(m))}, m...)
}

func extension(kind uint16, data string) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

func TestParseBad(t *testing.T) {
	sni := extension(0, "\x00\x0c\x00\x00\x09a.example")
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"good", message(sni), nil},
		{"no extensions", message(), nil},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), ErrNotTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, ErrNotTLS},
		{"an alert", []byte{21, 3, 1, 0, 2, 1, 0}, ErrNotTLS},
		{"another message", []byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, ErrInvalid},
		{"an empty record", []byte{22, 3, 1, 0, 0}, ErrInvalid},
		{"a large record", []byte{22, 3, 1, 0x40, 1}, ErrInvalid},
		{"another record between", append(spread(message(sni), 10)[:15], 23, 3, 1, 0, 1, 0), ErrInvalid},
		{"a long hello", []byte{22, 3, 1, 0, 4, 1, 1, 0, 0}, ErrInvalid},
		{"extension twice", message(sni, sni), ErrInvalid},
		{"two names", message(extension(0, "\x00\x0a\x00\x00\x02ab\x00\x00\x02cd")), ErrInvalid},
		{"empty name", message(extension(0, "\x00\x03\x00\x00\x00")), ErrInvalid},
		{"name with a dot at the end", message(extension(0, "\x00\x05\x00\x00\x02a.")), ErrInvalid},
		{"name with a zero", message(extension(0, "\x00\x06\x00\x00\x03a\x00b")), ErrInvalid},
		{"name with a space", message(extension(0, "\x00\x06\x00\x00\x03a b")), ErrInvalid},
		{"empty protocol", message(extension(16, "\x00\x01\x00")), ErrInvalid},
		{"cut protocols", message(extension(16, "\x00\x03\x05h2")), ErrInvalid},
		{"cut extension", message([]byte{0, 0, 0, 9, 0}), ErrInvalid},
	} {
		if _, err := Parse(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// theirs is what crypto/tls reads; ok is false if it refuses before it looks at the name.
func theirs(b []byte) (h Hello, ok bool) {
	server := tls.Server(&bytesConn{r: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			h, ok = Hello{strings.ToLower(info.ServerName), info.SupportedProtos}, true
			return nil, errors.New("enough")
		},
	})
	_ = server.Handshake()
	return h, ok
}

type bytesConn struct{ r *bytes.Reader }

func (c *bytesConn) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (c *bytesConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *bytesConn) Close() error                     { return nil }
func (c *bytesConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *bytesConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzParse: a hello that crypto/tls and we both take says the same to both, and
// an incomplete one is none to it either.
func FuzzParse(f *testing.F) {
	whole := client(f, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}})
	f.Add(whole)
	f.Add(spread(whole, 7))
	f.Add(message(extension(0, "\x00\x0c\x00\x00\x09a.example"), extension(16, "\x00\x03\x02h2")))
	for _, v := range vectors {
		f.Add(vector(f, v.hex))
		f.Add(spread(vector(f, v.hex), 50))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, err := Parse(b)
		want, ok := theirs(b)
		switch {
		case !ok:
		case errors.Is(err, ErrIncomplete):
			t.Fatalf("crypto/tls reads %+v where we want more", want)
		case err != nil: // we are stricter about names
		case ours.ServerName != want.ServerName || !slices.Equal(ours.Protocols, want.Protocols):
			t.Fatalf("we read %+v, crypto/tls %+v", ours, want)
		}
	})
}
