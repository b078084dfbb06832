package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// An UpgradeRequest asks a node to hand everything over to a new process.
type UpgradeRequest struct {
	// Binary is what to start; "" = the file that the node was started from. Over TCP it has to be "".
	Binary string
	// Limit is how long the new process may take to be ready, Drain how long the old one may take
	// to finish what it has; 0 = the defaults.
	Limit, Drain time.Duration
}

// An UpgradeResult is who serves now.
type UpgradeResult struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
	OldPID  int    `json:"old_pid"`
}

// maxUpgradeLimit bounds UpgradeRequest.Limit.
const maxUpgradeLimit = 10 * time.Minute

// Upgrade has the node hand over, and returns when the new process serves.
func (c *Client) Upgrade(ctx context.Context, r UpgradeRequest) (*UpgradeResult, error) {
	q := url.Values{"binary": {r.Binary}, "limit": {r.Limit.String()}, "drain": {r.Drain.String()}}
	ctx, cancel := context.WithTimeout(ctx, max(r.Limit, time.Minute)+30*time.Second)
	defer cancel()
	var out UpgradeResult
	return &out, c.call(ctx, http.MethodPost, "/v1/upgrade", q, &out)
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, via string) {
	if s.opts.Upgrade == nil {
		http.Error(w, "this node cannot do that", http.StatusNotImplemented)
		return
	}
	q := r.URL.Query()
	request := UpgradeRequest{Binary: q.Get("binary")}
	for key, to := range map[string]*time.Duration{"limit": &request.Limit, "drain": &request.Drain} {
		text := q.Get(key)
		if text == "" {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || (key == "limit" && d > maxUpgradeLimit) {
			http.Error(w, key+": "+text+" is not a duration that is allowed", http.StatusBadRequest)
			return
		}
		*to = d
	}
	if via != "unix" && request.Binary != "" {
		http.Error(w, "binary: what to start can be named over the unix socket alone", http.StatusForbidden)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(request.Limit + writeTimeout))
	// The caller's going away must not stop half of it.
	result, err := s.opts.Upgrade(context.WithoutCancel(r.Context()), request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	reply(w, result)
}
