package node

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"time"
)

const (
	apiVersion     = 1
	maxRequestBody = 64 << 10 // bytes
)

// adminServer answers the admin API: HTTP with JSON bodies on a unix socket.
// Whoever may open the socket may do everything.
type adminServer struct {
	http *http.Server
	done chan struct{} // closed when the accept loop has ended
}

func serveAdmin(l net.Listener, n *Node) *adminServer {
	a := &adminServer{done: make(chan struct{}), http: &http.Server{
		Handler:           adminHandler(n),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // no WriteTimeout: a promotion may wait for a peer
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelWarn),
	}}
	go func() {
		defer close(a.done)
		if err := a.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("admin API failed", "error", err)
		}
	}()
	return a
}

// Shutdown lets requests in flight finish; when ctx ends it cuts them off.
func (a *adminServer) Shutdown(ctx context.Context) error {
	err := a.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.http.Close())
	}
	<-a.done
	return err
}

// adminHandler has a line for each request of the API.
func adminHandler(n *Node) http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, answer func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			// Reading the body to its end lets the server notice when the
			// client goes away, which ends the request's context.
			r.Body = http.MaxBytesReader(w, r.Body, maxRequestBody)
			result, err := answer(r)
			reply(w, r, result, err)
		})
	}
	name := func(r *http.Request) string { return r.PathValue("name") }

	on("GET /v1/version", func(*http.Request) (any, error) { return n.apiVersion(), nil })
	on("GET /v1/status", func(*http.Request) (any, error) { return n.Status(), nil })
	on("GET /v1/volumes/{name}", func(r *http.Request) (any, error) {
		h, err := n.find(name(r))
		if err != nil {
			return nil, err
		}
		return h.status(), nil
	})
	on("POST /v1/volumes", with(func(_ *http.Request, body CreateRequest) (any, error) {
		st, err := n.create(body)
		return created{st}, err
	}))
	on("DELETE /v1/volumes/{name}", func(r *http.Request) (any, error) {
		return struct{}{}, n.delete(r.Context(), name(r))
	})
	on("POST /v1/volumes/{name}/promote", with(func(r *http.Request, body PromoteRequest) (any, error) {
		return n.promote(r.Context(), name(r), body)
	}))
	on("POST /v1/volumes/{name}/demote", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.demote(r.Context(), name(r))
	}))
	on("GET /v1/volumes/{name}/repair", func(r *http.Request) (any, error) {
		return n.planRepair(name(r))
	})
	on("POST /v1/volumes/{name}/repair", with(func(r *http.Request, body RepairRequest) (any, error) {
		return n.repair(r.Context(), name(r), body)
	}))
	on("GET /v1/volumes/{name}/rollback", func(r *http.Request) (any, error) {
		return n.planRollback(name(r))
	})
	on("POST /v1/volumes/{name}/rollback", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.rollback(r.Context(), name(r))
	}))
	on("POST /v1/volumes/{name}/rollback/give-up", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.giveUpRollback(name(r))
	}))
	snapshot := func(r *http.Request) string { return r.PathValue("snapshot") }
	on("GET /v1/volumes/{name}/snapshots", func(r *http.Request) (any, error) {
		return n.snapshots(name(r))
	})
	on("POST /v1/volumes/{name}/snapshots", with(func(r *http.Request, body SnapshotRequest) (any, error) {
		return n.createSnapshot(r.Context(), name(r), body)
	}))
	on("DELETE /v1/volumes/{name}/snapshots/{snapshot}", func(r *http.Request) (any, error) {
		return struct{}{}, n.deleteSnapshot(name(r), snapshot(r))
	})
	on("POST /v1/volumes/{name}/snapshots/{snapshot}/export", with(func(r *http.Request, body ExportRequest) (any, error) {
		return n.exportSnapshot(r.Context(), name(r), snapshot(r), body)
	}))
	on("POST /v1/volumes/{name}/snapshots/{snapshot}/unexport", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.unexportSnapshot(r.Context(), name(r), snapshot(r))
	}))
	on("GET /v1/volumes/{name}/snapshots/{snapshot}/rollback", func(r *http.Request) (any, error) {
		return n.planSnapshotRollback(name(r), snapshot(r))
	})
	on("POST /v1/volumes/{name}/snapshots/{snapshot}/rollback", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.rollbackToSnapshot(r.Context(), name(r), snapshot(r))
	}))
	on("POST /v1/volumes/{name}/export", with(func(r *http.Request, body ExportRequest) (any, error) {
		return n.export(r.Context(), name(r), body)
	}))
	on("POST /v1/volumes/{name}/unexport", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.unexport(r.Context(), name(r))
	}))
	on("GET /v1/volumes/{name}/split", func(r *http.Request) (any, error) {
		return n.splitBrains(name(r))
	})
	on("POST /v1/volumes/{name}/split/resolve", with(func(r *http.Request, body ResolveRequest) (any, error) {
		return n.resolve(r.Context(), name(r), body)
	}))
	on("POST /v1/volumes/{name}/connect", with(func(r *http.Request, body PeerRequest) (any, error) {
		return n.connect(name(r), body)
	}))
	on("POST /v1/volumes/{name}/disconnect", with(func(r *http.Request, body PeerRequest) (any, error) {
		return n.disconnect(name(r), body)
	}))
	on("POST /v1/volumes/{name}/resync/pause", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.pauseResync(name(r), true)
	}))
	on("POST /v1/volumes/{name}/resync/resume", with(func(r *http.Request, _ struct{}) (any, error) {
		return n.pauseResync(name(r), false)
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, nil, refuse(CodeNotFound, "the admin API knows no request %.20q %.200q", r.Method, r.URL.Path))
	})
	return mux
}

// created is answered with 201.
type created struct{ VolumeStatus }

func (n *Node) apiVersion() Version {
	return Version{Version: n.version, Go: runtime.Version(), API: apiVersion, Node: n.cfg.Node}
}

// with reads the request's body, which may be empty.
func with[B any](answer func(r *http.Request, body B) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var body B
		if r.ContentLength != 0 {
			if err := decodeStrict(r.Body, &body); err != nil {
				if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
					return nil, refuse(CodeTooLarge, "the request's body is larger than %d bytes", maxRequestBody)
				}
				return nil, refuse(CodeBadRequest, "the request's body is %v", err)
			}
		}
		return answer(r, body)
	}
}

func reply(w http.ResponseWriter, r *http.Request, result any, err error) {
	status := http.StatusOK
	if err != nil {
		e := asError(err)
		status, result = httpStatus[e.Code], e
	} else if c, ok := result.(created); ok {
		status, result = http.StatusCreated, c.VolumeStatus
	}
	text, err := json.Marshal(result)
	if err != nil {
		status = http.StatusInternalServerError
		text, _ = json.Marshal(refuse(CodeFailed, "the answer can't be written as JSON: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(append(text, '\n')) // an error here is the client's going away
	}
}
