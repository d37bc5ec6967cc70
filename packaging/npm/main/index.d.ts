/** `true`, or as text from an environment: `"true"`, `"1"`, `"on"`, `"yes"`. */
type Toggle = boolean | string;

declare namespace server {
  /** The keys of laravel-echo-server.json, with those of laravel-echo-server.toml beside them. */
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
    /** Starts the server. Resolves when it is ready; rejects with its errors when it ends before. */
    run(options?: Options): Promise<EchoServer>;
    /** Stops the server. Resolves when its process has ended. */
    stop(): Promise<void>;
  }
}

declare const server: server.EchoServer;
export = server;
