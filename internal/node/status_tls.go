package node

import (
	"fmt"
	"time"

	"github.com/pharos-lb/pharos/forward/l7"
	"github.com/pharos-lb/pharos/internal/admin"
)

// expiresSoon is how long before its end a certificate is worth a word: those that
// live for 90 days are usually renewed with 30 left, those that live for six days
// with two.
const expiresSoon = 48 * time.Hour

func certificateStatus(states []l7.CertificateState) []admin.CertificateStatus {
	out := make([]admin.CertificateStatus, len(states))
	for i, s := range states {
		out[i] = admin.CertificateStatus{
			Listener: s.Listener, File: s.File, Names: s.Names, NotAfter: s.NotAfter, StapleUntil: s.StapleUntil, Error: s.Error,
		}
	}
	return out
}

// worrying names the certificates that need an operator.
func worrying(certificates []admin.CertificateStatus, now time.Time) []string {
	var out []string
	told := map[string]bool{} // a file may serve on many addresses
	for _, c := range certificates {
		if told[c.File] {
			continue
		}
		left := c.NotAfter.Sub(now)
		switch {
		case c.Error != "":
			out = append(out, "a changed certificate was refused, the old one goes on: "+firstLine(c.Error))
		case left <= 0:
			out = append(out, fmt.Sprintf("certificate %s has expired at %s; it is served on", c.File, c.NotAfter.UTC().Format(time.RFC3339)))
		case left < expiresSoon:
			out = append(out, fmt.Sprintf("certificate %s expires in %s", c.File, left.Round(time.Minute)))
		default:
			continue
		}
		told[c.File] = true
	}
	return out
}
