package cert

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

const (
	// A fetch that failed is repeated after this long.
	stapleRetry = 5 * time.Minute
	// stapleWithin bounds one fetch.
	stapleWithin = 10 * time.Second
	// unnamedLife is how long a response without an end is used.
	unnamedLife = 24 * time.Hour
	// maxStaples is how many responses are kept; certificates beyond it get none.
	maxStaples = 10_000
)

// A Stapler keeps OCSP responses by certificate. It outlives the Stores that use
// it. Any number of goroutines may use it.
type Stapler struct {
	client *http.Client

	mu      sync.Mutex // guards the rest
	staples map[fingerprint]*stapled
	// Failures counts fetches that brought nothing to staple.
	failures uint64
}

// stapled is what is known of one certificate.
type stapled struct {
	pair        *pair
	der         []byte // nil = none
	until, next time.Time
}

// NewStapler returns a Stapler without responses.
func NewStapler() *Stapler {
	return &Stapler{
		client:  &http.Client{Timeout: stapleWithin, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}},
		staples: make(map[fingerprint]*stapled),
	}
}

// Failures returns how many fetches brought nothing to staple.
func (s *Stapler) Failures() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures
}

// staple returns p with its response, and notes that one is wanted.
func (s *Stapler) staple(p *pair, now time.Time) *pair {
	if len(p.certificate.Leaf.OCSPServer) == 0 {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := p.fingerprint()
	have := s.staples[id]
	if have == nil {
		if len(s.staples) < maxStaples {
			s.staples[id] = &stapled{pair: p}
		}
		have = &stapled{}
	}
	next := *p
	next.certificate.OCSPStaple, next.stapleUntil = nil, time.Time{}
	if have.der != nil && now.Before(have.until) {
		next.certificate.OCSPStaple, next.stapleUntil = have.der, have.until
	}
	return &next
}

// news reports whether p is served with another response than the newest.
func (s *Stapler) news(p *pair, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.staples[p.fingerprint()]
	switch {
	case have == nil:
		return false
	case have.der != nil && now.Before(have.until):
		return !bytes.Equal(have.der, p.certificate.OCSPStaple)
	default:
		return p.certificate.OCSPStaple != nil // it has run out
	}
}

// Fetch gets the responses that are due, one after the other, and drops those whose
// certificate has run out. It blocks for as long as the responders take.
func (s *Stapler) Fetch(ctx context.Context, now time.Time) error {
	var due []*stapled
	s.mu.Lock()
	for id, have := range s.staples {
		if now.After(have.pair.certificate.Leaf.NotAfter) {
			delete(s.staples, id)
			continue
		}
		if !now.Before(have.next) {
			due = append(due, have)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, have := range due {
		der, until, err := s.ask(ctx, have.pair, now)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			s.failures++
			have.next = now.Add(stapleRetry)
			errs = append(errs, fmt.Errorf("OCSP response for %s: %w", have.pair.file.Certificate, err))
		} else {
			have.der, have.until, have.next = der, until, now.Add(until.Sub(now)/2)
		}
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (s *Stapler) ask(ctx context.Context, p *pair, now time.Time) ([]byte, time.Time, error) {
	if len(p.certificate.Certificate) < 2 {
		return nil, time.Time{}, errors.New("the file has no issuer behind the certificate, and who asks must name it")
	}
	issuer, err := x509.ParseCertificate(p.certificate.Certificate[1])
	if err != nil {
		return nil, time.Time{}, err
	}
	der, err := fetch(ctx, s.client, p.certificate.Leaf, issuer)
	if err != nil {
		return nil, time.Time{}, err
	}
	until, err := checkStaple(der, p, now)
	return der, until, err
}

// fetch asks the responder that the certificate names.
func fetch(ctx context.Context, client *http.Client, leaf, issuer *x509.Certificate) ([]byte, error) {
	request, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, url := range leaf.OCSPServer {
		if !strings.HasPrefix(url, "http://") {
			continue
		}
		der, err := post(ctx, client, url, request)
		if err == nil {
			return der, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, errors.New("the certificate names no http responder")
	}
	return nil, errors.Join(errs...)
}

func post(ctx context.Context, client *http.Client, url string, request []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, 64<<10))
}

// checkStaple returns until when a response may be stapled to p.
func checkStaple(der []byte, p *pair, now time.Time) (time.Time, error) {
	var issuer *x509.Certificate
	if len(p.certificate.Certificate) > 1 {
		var err error
		if issuer, err = x509.ParseCertificate(p.certificate.Certificate[1]); err != nil {
			return time.Time{}, err
		}
	}
	res, err := ocsp.ParseResponseForCert(der, p.certificate.Leaf, issuer)
	if err != nil {
		return time.Time{}, err
	}
	until := endOf(res, now)
	switch {
	case res.Status != ocsp.Good:
		return time.Time{}, errors.New("it does not say that the certificate is good")
	case now.Before(res.ThisUpdate.Add(-5 * time.Minute)):
		return time.Time{}, fmt.Errorf("it is not in force before %s", res.ThisUpdate.Format(time.RFC3339))
	case !now.Before(until):
		return time.Time{}, fmt.Errorf("it has run out at %s", until.Format(time.RFC3339))
	}
	return until, nil
}

func endOf(res *ocsp.Response, now time.Time) time.Time {
	if res.NextUpdate.IsZero() {
		return now.Add(unnamedLife)
	}
	return res.NextUpdate
}
