package l7

import (
	"net/http"
	"strings"
	"testing"
)

// TestManyInterim: a backend that says for long that it is at work (102) is waited for; one that says nothing else is not.
func TestManyInterim(t *testing.T) {
	const interim = "HTTP/1.1 102 Processing\r\n\r\n"
	for _, tt := range []struct{ n, want int }{{maxInterim, 200}, {maxInterim + 1, 502}} {
		f := start(t, Options{}, says(t, strings.Repeat(interim, tt.n)+"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		c := dial(t, f.addr)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		heard := 0
		res, err := http.ReadResponse(c.r, nil)
		for err == nil && res.StatusCode == 102 {
			heard++
			res, err = http.ReadResponse(c.r, nil)
		}
		if err != nil || res.StatusCode != tt.want || heard != maxInterim {
			t.Errorf("%d: got %v, %v after %d", tt.n, res, err, heard)
		}
	}
	if maxInterim < 60 { // RFC 2518 has one said every 20 s
		t.Error("a backend that works for 20 minutes is cut off")
	}
}
