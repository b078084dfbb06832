package l7

import "testing"

func TestCookieAndHeaderValues(t *testing.T) {
	head := "GET /p HTTP/1.1\r\nHost: a\r\nCookie: xsession=0; session=\"one\"; session=two\r\nX-User: u1\r\nX-User: u2\r\nCookie:session2=3;empty=\r\n\r\n"
	var r request
	if f := r.parse([]byte(head)); f.bad() {
		t.Fatal(f)
	}
	tests := []struct{ name, got, want string }{
		{"first of two", string(cookieValue(&r, "session")), `"one"`},
		{"in the second field, without a space", string(cookieValue(&r, "session2")), "3"},
		{"empty", string(cookieValue(&r, "empty")), ""},
		{"case counts", string(cookieValue(&r, "Session")), ""},
		{"header, whatever case", string(headerValue(&r, "x-USER")), "u1"},
		{"no header", string(headerValue(&r, "x-use")), ""},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}
