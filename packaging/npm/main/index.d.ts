/** A boolean, or a string as in environment variables: `"true"`, `"1"`, `"on"`, `"yes"`. */
type Toggle = boolean | string;

declare namespace server {
  /** The keys of laravel-echo-server.json; those of laravel-echo-server.toml are accepted, too. */
  interface Options {
    authHost?: string | string[];
    authEndpoint?: string;
    clients?: { appId: string; key: string }[];
    database?: 'redis' | 'sqlite' | (string & {});
    databaseConfig?: {
      redis?: Record<string, unknown>;
      sqlite?: { databasePath?: string };
      publishPresence?: Toggle;
      [key: string]: unknown;
    };
    devMode?: Toggle;
    host?: string | null;
    port?: number | string;
    protocol?: 'http' | 'https' | (string & {});
    socketio?: Record<string, unknown>;
    secureOptions?: number;
    sslCertPath?: string;
    sslKeyPath?: string;
    sslCertChainPath?: string;
    sslPassphrase?: string;
    subscribers?: { http?: Toggle; redis?: Toggle };
    apiOriginAllow?: { allowCors?: Toggle; allowOrigin?: string; allowMethods?: string; allowHeaders?: string };
    [key: string]: unknown;
  }

  interface EchoServer {
    /** Starts the server. Resolves when it is ready; rejects with its error output when it exits before that. */
    run(options?: Options): Promise<EchoServer>;
    /** Stops the server. Resolves when its process has exited. */
    stop(): Promise<void>;
  }
}

declare const server: server.EchoServer;
export = server;
